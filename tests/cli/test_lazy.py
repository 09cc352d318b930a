"""A command does not load what it does not use, and what is loaded late works."""

import subprocess
import sys

import numpy as np
from PIL import Image

from icgn.cli.lazy import SELDOM, Deferred

COMMAND = """
import sys
from icgn.cli import main
sys.argv = ["icgn", *sys.argv[1:]]
try:
    main()
except SystemExit as done:
    assert not done.code, done.code
print("loaded:", *(name for name in ("torch._dynamo", "matplotlib", "numba", "scipy.stats") if name in sys.modules))
import torch, torchvision
boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 10, 10], [20, 20, 30, 30]])
print(torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist())
print(torchvision.models.resnet18.__name__)
"""


def test_a_restoration_does_not_load_what_is_slow_to_import(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    command = [sys.executable, "-c", COMMAND, "denoise", str(tmp_path / "a.png"), "-o", str(tmp_path / "b.png")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-3:] == ["loaded:", "[0, 2]", "resnet18"]
    assert (tmp_path / "b.png").exists()


def test_only_the_named_modules_are_late():
    finder = Deferred(SELDOM | {"nowhere.to.be.found"})
    assert finder.find_spec("json", None) is None and finder.find_spec("nowhere.to.be.found", []) is None
