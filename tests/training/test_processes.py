"""Several processes: real ones under torchrun, on the CPU by gloo."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tomli_w
import torch
from processes import ranks
from training_cases import data, recipe, write_photographs
from typer.testing import CliRunner

from icgn import cli, training
from icgn.evaluation import read_results
from icgn.training import CHECKPOINT, Processes, read_checkpoint

HELPERS = Path(__file__).parents[1] / "helpers"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]

GRADIENTS = """
import atexit, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
# Called after what is registered later.
atexit.register(lambda: Path(f"{sys.argv[2]}.{group.rank}").write_text(str(torch.distributed.is_initialized())))
import importlib
from processes import ranks
from training_cases import data, recipe
from icgn import training
from icgn.training import Processes
fit = importlib.import_module("icgn.training.fit")
r = recipe(batch=5)
group = Processes("cpu")
model = training.build(r)
run = fit._Training(model, r, None, None, "", training.make_physics({}), group, False)
value, stop = run._backward(data().training, asked=group.rank == 1)
if group.is_main:
    torch.save({"value": value, "stop": stop, "count": group.count, "grads": [p.grad for p in model.parameters()]},
               sys.argv[2])
"""


def launch(launcher, *arguments, cwd):
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [str(a) for a in (*launcher, *arguments)]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_two_processes_find_the_gradients_of_one(tmp_path):
    script = tmp_path / "gradients.py"
    script.write_text(GRADIENTS)
    launch(TORCHRUN, script, HELPERS, tmp_path / "two.pt", cwd=tmp_path)
    two = torch.load(tmp_path / "two.pt", weights_only=True)
    r = recipe(batch=5)
    model = training.build(r)
    batch = training.draw(data().training, r, 0, training.make_physics({}))
    mean = r.loss.values(model, batch).mean()
    mean.backward()
    assert two["count"] == 2 and two["stop"] is True
    # A group left open now and then aborts its process in the teardown of the interpreter.
    assert [(tmp_path / f"two.pt.{rank}").read_text() for rank in (0, 1)] == ["False", "False"]
    assert two["value"] == pytest.approx(float(mean.detach()), rel=1e-5)
    for parallel, parameter in zip(two["grads"], model.parameters(), strict=True):
        assert torch.allclose(parallel, parameter.grad, rtol=1e-3, atol=1e-6)


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """The arguments of a training and of an evaluation, without their folders."""
    place = tmp_path_factory.mktemp("files")
    folder = write_photographs(place / "photographs", 4)
    file = place / "r.toml"
    file.write_text(tomli_w.dumps(recipe(steps=4, validate_every=4).to_dict()))
    return {
        "train": ("train", "--recipe", file, "--data", folder, "--device", "cpu", "--out"),
        "evaluate": ("evaluate", "--model", "tv", "--dataset", folder, "--sigma", 25, "--device", "cpu", "-o"),
    }


@pytest.fixture(scope="module")
def alone(commands, tmp_path_factory):
    """What both write in one process."""
    place = tmp_path_factory.mktemp("alone")
    for name, arguments in commands.items():
        result = CliRunner().invoke(cli.app, [str(a) for a in (*arguments, place / name)])
        assert result.exit_code == 0, result.output
    return place


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"])
def test_the_command_trains_in_two_processes(tmp_path, commands, alone, launcher):
    command = ("-m", "icgn.cli", *commands["train"], tmp_path / "two")
    launch(launcher, *command, cwd=tmp_path)
    two, one = (read_checkpoint(place / CHECKPOINT) for place in (tmp_path / "two", alone / "train"))
    for name, weight in one["model"].items():
        assert torch.allclose(two["model"][name], weight, atol=2e-3), name
    rows = [json.loads(content["history"])[-1] for content in (two, one)]
    assert rows[0]["psnr_25"] == pytest.approx(rows[1]["psnr_25"], abs=0.05)


def in_two(arguments, told):
    """Give the command line some arguments in two processes; returns their exit codes and what each said."""

    def work(rank):
        result = CliRunner().invoke(cli.app, [str(a) for a in arguments])
        (told / str(rank)).write_text(result.output)
        return result.exit_code

    codes = ranks(2, work)
    return codes, [(told / str(rank)).read_text() for rank in range(2)]


def test_an_error_of_one_is_that_of_all_and_no_process_is_left_waiting(tmp_path, commands, alone):
    codes, told = in_two((*commands["train"], alone / "train"), tmp_path)
    assert codes == [1, 1] and all("a run is there already" in text for text in told)


def test_evaluation_is_shared(tmp_path, commands, alone):
    codes, _ = in_two((*commands["evaluate"], tmp_path / "two"), tmp_path)
    assert codes == [0, 0]
    two, one = (read_results(place / "results.json")[0] for place in (tmp_path / "two", alone / "evaluate"))
    assert [(e.image, e.psnr) for e in two] == [(e.image, e.psnr) for e in one] and len(one) == 4


def test_one_process_needs_no_launcher():
    group = Processes(device="cpu")
    assert (group.rank, group.count, group.is_main) == (0, 1, True)
    assert group.share([1, 2, 3]) == [1, 2, 3] and group.gather([4]) == [4] and group.from_main(lambda: 5) == 5


def test_several_processes_without_accelerate(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"several processes need accelerate, expected: pip install 'icgn\[train\]'"
    ):
        Processes(device="cpu")
