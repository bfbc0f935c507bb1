"""Experts on several processes: the gradient of one, a lost process, and a training that goes on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pdelab.errors import SettingsError
from pdelab.team import Team, shared_out

TRAIN = [
    "train",
    "hc-moe",
    "--family",
    "burgers-random",
    "--family-set",
    "decay=4",
    "--device",
    "cpu",
    "--threads",
    "1",
]
SMALL = ["n_basis=8", "width=12", "depth=2", "n_points=160", "n_interface=8"]
GRADIENT = """
import sys, torch
from pdelab.problems.burgers import BurgersFamily
from pdelab.solvers._instance import Instance
from pdelab.solvers.hc_moe import HCMoE
from pdelab.team import joined

torch.set_num_threads(1)
family = BurgersFamily(decay=4.0)
members = [Instance.of(family.sample(i), True) for i in range(3)]
found = {}
with joined(torch.device("cpu")) as team:
    for coupling in ("joint", "none"):
        torch.manual_seed(4)
        solver = HCMoE(n_basis=8, width=12, depth=2, n_points=160, n_interface=8, experts={"x": 5}, coupling=coupling)
        operator = solver.blank(family)
        operator.set_scales(members, 0)
        operator.join(team)
        terms = operator.losses(members, [1])
        gradient = torch.autograd.grad(sum(terms.values()), operator.trainable())
        parts = [torch.stack(list(terms.values())).detach(), *(g.flatten() for g in gradient)]
        found[coupling] = team.sum(torch.cat(parts))
    if team.leads:
        torch.save(found, sys.argv[1])
"""


def _launch(n, arguments, **options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(n), "--rdzv-backend", "c10d"]
    launcher += ["--rdzv-endpoint", "localhost:0"]
    command = [*(launcher if n > 1 else [sys.executable]), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, **options)


def test_two_and_four_processes_give_the_gradient_of_one(tmp_path):
    script = tmp_path / "gradient.py"
    script.write_text(GRADIENT)
    found = {}
    for n in (1, 2, 4):
        path = tmp_path / f"{n}.pt"
        done = _launch(n, [str(script), str(path)])
        assert done.returncode == 0, done.stderr[-2000:]
        found[n] = torch.load(path, weights_only=True)
    for coupling, alone in found[1].items():
        for n in (2, 4):
            assert float((found[n][coupling] - alone).abs().max() / alone.abs().max()) < 1e-10, (coupling, n)


def test_training_by_two_processes_ends_where_one_ends(tmp_path):
    weights = {}
    for n in (1, 2):
        path = tmp_path / f"{n}.safetensors"
        settings = [part for pair in [*SMALL, "experts={x: 4}"] for part in ("--set", pair)]
        done = _launch(n, ["-m", "pdelab", *TRAIN, *settings, "--budget", "3steps", "--out", str(path)])
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.count("BUDGET_SPENT") == 1
        weights[n] = load_file(path)
    # Adam divides each entry by its size, so that round-off in small ones shows a little.
    assert all(torch.allclose(weights[1][k], weights[2][k], atol=1e-6) for k in weights[1])


LOST = """
import os, sys, torch
from pdelab.training import training
from pdelab.solver import Progress

rank = int(os.environ["RANK"])
cut_off = training("hc-moe", "burgers-random", {SETTINGS}, {"decay": 4.0})
if rank == 1 and sys.argv[2] == "lost":
    import pdelab.solvers.hc_moe as module
    losses = module.Operator.losses
    calls = []

    def dying(self, *arguments):
        calls.append(1)
        if len(calls) > 4:
            os._exit(9)
        return losses(self, *arguments)

    module.Operator.losses = dying
import pdelab.checkpoint
pdelab.checkpoint.CheckpointStore.__init__.__defaults__ = (0.0,)
from pathlib import Path
from pdelab.errors import PdelabError
try:
    cut_off.run(Path(sys.argv[1]), budget="6steps", device="cpu", threads=1)
except PdelabError as error:
    print(type(error).__name__, error, flush=True)
    sys.exit(1)
"""


def test_a_lost_process_ends_the_job_with_advice_and_the_same_command_goes_on(tmp_path):
    settings = '"n_basis": 8, "width": 12, "depth": 2, "n_points": 160, "n_interface": 8, "experts": {"x": 2}'
    script = tmp_path / "lost.py"
    script.write_text(LOST.replace("{SETTINGS}", "{" + settings + "}"))
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    assert _launch(2, [str(script), str(whole), "sound"]).returncode == 0
    done = _launch(2, [str(script), str(cut), "lost"])
    assert done.returncode != 0 and not cut.exists()
    assert list(Path(f"{cut}.checkpoint").glob("step-*.json"))
    if "TeamError" in done.stdout:  # unless the launcher was quicker to end the other process
        assert "give the same command again" in done.stdout
    assert _launch(2, [str(script), str(cut), "sound"]).returncode == 0
    first, second = load_file(whole), load_file(cut)
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert not Path(f"{cut}.checkpoint").exists()


def test_experts_are_shared_out_by_cost():
    assert shared_out([1.0, 1.0, 1.0, 1.0], 2) == [[0, 2], [1, 3]]
    assert shared_out([5.0, 1.0, 1.0, 1.0, 1.0], 2) == [[0], [1, 2, 3, 4]]
    with pytest.raises(SettingsError, match="at most one for each of 2 experts, got 3"):
        shared_out([1.0, 1.0], 3)


def test_more_processes_than_experts_are_refused(tmp_path):
    settings = [part for pair in [*SMALL, "experts={x: 2}"] for part in ("--set", pair)]
    command = ["-m", "pdelab", *TRAIN, *settings, "--budget", "2steps", "--out", str(tmp_path / "x")]
    done = _launch(3, command)
    assert done.returncode != 0
    assert "expected at most one for each of 2 experts, got 3" in done.stderr + done.stdout
    timed = _launch(2, [*command[:-4], "--budget", "2s", *command[-2:]])
    assert "need one in steps" in timed.stderr + timed.stdout


def test_one_alone_does_nothing():
    tensor = torch.arange(6.0).reshape(2, 3)
    assert Team().sum(tensor) is tensor and Team().gather(tensor, [[0, 1]], 0) is tensor
