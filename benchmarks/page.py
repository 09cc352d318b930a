"""Seconds of a denoising on the page: from the request to the whole answer, with its proof and pictures.

    python benchmarks/page.py

A server of `icgn app` is started on a free port and asked over HTTP, as a browser does, with an uploaded photograph.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from gradio_client import Client, handle_file
from harness import Threads

from icgn.app import server
from icgn.app.actions import OWN
from icgn.datasets import Picture, add_noise, bundled, write_picture


def main(
    side: Annotated[int, typer.Option(min=32, max=512, help="Side of the picture, pixels.")] = 512,
    times: Annotated[int, typer.Option(min=1, help="Requests, one after the other.")] = 5,
    model: Annotated[str, typer.Option(help="A model of the page: fast, best...")] = "fast",
    threads: Threads = 2,
) -> None:
    """Ask for the same denoising several times and print the seconds of each."""
    torch.set_num_threads(threads)
    noisy = add_noise(bundled(gray=True).find("camera").image[:, :side, :side], 25 / 255, seed=0)
    with tempfile.TemporaryDirectory() as folder, server.serving(host="127.0.0.1", port=0) as url:
        path = Path(folder) / "noisy.png"
        write_picture(path, Picture(noisy))
        visitor = Client(url, verbose=False, analytics_enabled=False)
        visitor.predict(handle_file(str(path)), api_name="/upload")
        for _ in range(times):
            begin = time.perf_counter()
            answer = visitor.predict(
                OWN, "denoise", model, 25, False, 1, 0.08, "gaussian", 1, 9, 0, 2, None, "", 0, api_name="/restore"
            )
            if "Proved: within" not in answer[0]:
                raise SystemExit(f"no proof in the answer: {answer[0][:200]}")
            print(f"{time.perf_counter() - begin:.2f} s", flush=True)


if __name__ == "__main__":
    typer.run(main)
