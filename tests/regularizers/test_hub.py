"""Models of the Hugging Face Hub, fetched by the real client from a server on this machine that stands in for it."""

import functools
import hashlib
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import icgn
from icgn import cli
from icgn.regularizers import ModelError, RidgeICGN, hub, read_card, save_model

huggingface_hub = pytest.importorskip("huggingface_hub")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    reg = RidgeICGN(filters=3, size=3, knots=3).eval()
    card = {"name": "small", "psnr": {"BSD68": {"25": 28.125}}, "data": {"name": "photographs", "licence": "free"}}
    save_model(reg, tmp_path / "mine" / "small.safetensors", card)
    return reg


class Hub(BaseHTTPRequestHandler):
    """What the client asks of the hub: the list of files of a revision, and the files."""

    folder: Path
    asked: list[str]

    def do_GET(self):
        self._answer(body=True)

    def do_HEAD(self):
        self._answer(body=False)

    def log_message(self, *_):
        pass

    def _answer(self, body):
        path = self.path.split("?")[0]
        files = sorted(p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*") if p.is_file())
        if path.startswith("/api/models/owner/small"):
            siblings = [{"rfilename": name} for name in files]
            content = {"id": "owner/small", "sha": COMMIT, "siblings": siblings, "private": False}
            if "/tree/" in path:
                content = [{"type": "file", "path": n, "oid": _sha1(self.folder / n), "size": 1} for n in files]
            return self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"}, body)
        name = path.rpartition(f"/owner/small/resolve/{COMMIT}/")[2]
        if name in files:
            self.asked.append(name)
            content = (self.folder / name).read_bytes()
            return self._send(200, content, {"ETag": f'"{_sha1(self.folder / name)}"', "X-Repo-Commit": COMMIT}, body)
        return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)

    def _send(self, status, content, headers, body):
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


def _sha1(path):
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The folder that is on the hub as owner/small, and what was fetched of it."""
    handler = type("Here", (Hub,), {"folder": tmp_path / "mine", "asked": []})
    listening = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    download = functools.partial(
        huggingface_hub.snapshot_download,
        endpoint=f"http://127.0.0.1:{listening.server_port}",
        cache_dir=tmp_path / "cache",
        token=False,
    )
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    yield handler
    listening.shutdown()
    listening.server_close()
    thread.join()


@pytest.mark.parametrize("name", ["hf:owner/small", "hf:owner/small@main", f"hf:owner/small@{COMMIT}"])
def test_a_model_of_the_hub_is_that_which_was_uploaded(model, server, name):
    loaded = icgn.load_pretrained(name)
    x = torch.rand(1, 1, 9, 11)
    assert torch.equal(loaded.grad(x, 0.05), model.grad(x, 0.05))
    assert read_card(name)["name"] == "small"


def test_nothing_but_weights_and_cards_is_fetched(model, server):
    (server.folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (server.folder / "modeling.py").write_text("raise SystemExit")
    icgn.load_pretrained("hf:owner/small")
    assert set(server.asked) == {"small.safetensors", "small.json"}


def test_a_model_that_was_fetched_is_there_without_the_network(model, server, monkeypatch):
    icgn.load_pretrained("hf:owner/small")
    offline = functools.partial(huggingface_hub.snapshot_download, local_files_only=True)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    server.folder = server.folder / "gone"
    assert isinstance(icgn.load_pretrained("hf:owner/small"), RidgeICGN)


def test_repositories_without_a_model_say_why(model, server, tmp_path):
    with pytest.raises(ModelError, match=r"hf:owner/other: cannot be fetched from the Hugging Face Hub: "):
        icgn.load_pretrained("hf:owner/other")
    weights = server.folder / "small.safetensors"
    altered = bytearray(weights.read_bytes())
    altered[-1] ^= 1
    weights.write_bytes(altered)
    with pytest.raises(ModelError, match="the sha256 differs"):
        icgn.load_pretrained("hf:owner/small")


def test_a_repository_of_pickles_is_refused(model, server):
    (server.folder / "small.safetensors").rename(server.folder / "small.bin")
    with pytest.raises(ModelError, match=r"has 0 \.safetensors files"):
        icgn.load_pretrained("hf:owner/small")
    assert server.asked and "small.bin" not in server.asked


@pytest.mark.parametrize("name", ["hf:", "hf:small", "hf:a/b/c", "hf:../b/c", "hf:a/b@", "hf:a b/c", "hf:a/b@x y"])
def test_names_that_are_none(name):
    with pytest.raises(ModelError, match=r"expected hf:owner/name or hf:owner/name@revision"):
        icgn.load_pretrained(name)


def test_without_the_client(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelError, match=r"needs huggingface_hub, expected: pip install 'icgn\[hub\]'"):
        icgn.load_pretrained("hf:owner/small")


def run(*arguments):
    result = CliRunner().invoke(cli.app, [str(a) for a in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_what_is_prepared_can_be_uploaded_and_loaded(model, server, tmp_path):
    out = tmp_path / "upload"
    result = run("hub", tmp_path / "mine", "-o", out, "--repository", "owner/small")
    assert result.exit_code == 0 and f"hf upload owner/small {out}" in result.stdout
    assert sorted(p.name for p in out.iterdir()) == ["README.md", "small.json", "small.safetensors"]
    server.folder = out
    x = torch.rand(1, 1, 9, 11)
    assert torch.equal(icgn.load_pretrained("hf:owner/small").grad(x, 0.05), model.grad(x, 0.05))
    text = (out / "README.md").read_text()
    card = huggingface_hub.ModelCard(text, ignore_metadata_errors=False)
    assert card.data.library_name == "icgn" and "deepinv" in card.data.tags
    assert "load_pretrained('hf:owner/small')" in text and "| BSD68 | 25 | 28.12 |" in text
    assert "photographs: free" in text


@pytest.mark.parametrize("name", icgn.available_models())
def test_every_shipped_model_can_be_described(name):
    card = read_card(name)
    text = hub.readme(card, f"owner/{name}")
    assert f"# {name}\n" in text and card["data"]["licence"] in text
    assert all(f"{value:.2f} |" in text for levels in card["psnr"].values() for value in levels.values())


def test_models_that_cannot_be_prepared(model, tmp_path):
    mine, other = tmp_path / "mine", tmp_path / "other"
    assert "where the model is" in run("hub", mine, "-o", mine).stderr
    assert "expected hf:owner/name" in run("hub", mine, "-o", other, "--repository", "nameless").stderr
    assert run("hub", "unheard-of", "-o", other).exit_code == 2 and not other.exists()
    other.mkdir()
    (other / "large.safetensors").touch()
    assert "holds large.safetensors already" in run("hub", mine, "-o", other).stderr
    (tmp_path / "file").touch()
    assert run("hub", mine, "-o", tmp_path / "file" / "x").exit_code == 2
    with (mine / "small.safetensors").open("r+b") as file:
        file.truncate(20)
    assert "sha256 differs" in run("hub", mine, "-o", tmp_path / "new").stderr
