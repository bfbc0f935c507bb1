"""Checkpoints come back exactly, and damaged, foreign or executable ones are refused."""

import hashlib
import json
import math
import pickle
import re

import pytest
import torch

import pdelab
from pdelab.checkpoint import CheckpointStore, flatten, random_state, restore, set_random_state
from pdelab.errors import CheckpointError, OutputError

OWNER = {"solver": "toy", "solver_args": {"width": (3, 4)}, "seed": 48109}


def store(folder, **changes):
    return CheckpointStore(folder, OWNER | changes)


def filled(folder, steps=(10, 20, 30)):
    for step in steps:
        store(folder).save(step, {"w": torch.full((2,), step / 7, dtype=torch.float64)}, {"step": step})
    return store(folder)


def same(a, b):
    """Equal in structure, types, dtypes and bits."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and (a == b or (a != a and b != b))


def test_no_checkpoint_is_none(tmp_path):
    assert store(tmp_path / "none").load() is None


def test_tensors_and_facts_come_back_exactly(tmp_path):
    tensors = {
        "a": torch.randn(3, 4, dtype=torch.float64).T,
        "b": torch.tensor(2.5),
        "c": torch.zeros(0),
        "d": torch.tensor([1, 0], dtype=torch.uint8),
    }
    facts = {"x": 0.1 + 0.2, "name": "ä", "list": [1, None, True, 5e-324]}
    store(tmp_path).save(1000, tensors, facts)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-0001000.json", "step-0001000.safetensors"]
    step, found, told = store(tmp_path).load()
    assert step == 1000 and told == facts and same(tensors, {name: found[name] for name in tensors})


def test_nested_state_comes_back_exactly():
    w = torch.randn(5, dtype=torch.float64)
    state = {
        "optimizer": {"state": {0: {"step": torch.tensor(3.0), "old": [w, w[:2]], "al": [None, w.sum()]}}, "lr": 1e-3},
        "betas": (0.9, 0.999),
        "history": [0.1, math.nan, math.inf, -math.inf],
        "flags": [True, None, "text", 7],
        "empty": [{}, [], ()],
    }
    tensors, tree = flatten(state)
    assert same(state, restore(tensors, json.loads(json.dumps(tree, allow_nan=False))))


@pytest.mark.parametrize("kind", ["adam", "adamw", "lbfgs"])
def test_optimiser_state_goes_on_to_the_same_bits(kind, tmp_path):
    def make():
        torch.manual_seed(5521)
        w = torch.nn.Parameter(torch.randn(6, dtype=torch.float64))
        made = {
            "adam": lambda: torch.optim.Adam([w], lr=0.03, amsgrad=True),
            "adamw": lambda: torch.optim.AdamW([w], lr=0.03),
            "lbfgs": lambda: torch.optim.LBFGS([w], max_iter=3, history_size=4, line_search_fn="strong_wolfe"),
        }[kind]()
        return w, made, torch.optim.lr_scheduler.ExponentialLR(made, 0.9)

    def advance(w, optimizer, scheduler, n):
        def closure():
            optimizer.zero_grad()
            loss = ((w - torch.arange(6.0, dtype=torch.float64)) ** 4).sum() + torch.cos(w).sum()
            loss.backward()
            return loss

        for _ in range(n):
            optimizer.step(closure)
            scheduler.step()

    w, optimizer, scheduler = make()
    advance(w, optimizer, scheduler, 4)
    tensors, tree = flatten({"w": w, "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()})
    store(tmp_path).save(4, tensors, {"tree": tree})
    advance(w, optimizer, scheduler, 4)

    _, tensors, facts = store(tmp_path).load()
    state = restore(tensors, facts["tree"])
    again, optimizer, scheduler = make()
    again.data.copy_(state["w"])
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    advance(again, optimizer, scheduler, 4)
    assert torch.equal(w, again)


def test_random_stream_goes_on():
    torch.manual_seed(77213)
    torch.rand(3)
    tensors, tree = flatten(random_state(torch.device("cpu")))
    first = torch.rand(5)
    set_random_state(restore(tensors, tree), torch.device("cpu"))
    assert torch.equal(first, torch.rand(5))


def test_newest_two_are_kept(tmp_path):
    step, tensors, facts = filled(tmp_path).load()
    assert step == facts["step"] == 30 and float(tensors["w"][0]) == 30 / 7
    assert sorted(p.name for p in tmp_path.glob("*.json")) == ["step-0000020.json", "step-0000030.json"]
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_a_damaged_checkpoint_falls_back_to_the_older(tmp_path, suffix, damage, caplog):
    chosen = filled(tmp_path)
    path = tmp_path / f"step-0000030{suffix}"
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(data[: len(data) // 2] if damage == "cut" else data[:-1] + bytes([data[-1] ^ 1]))
    assert chosen.load()[0] == 20
    # A JSON file that is gone leaves no checkpoint to warn about: it is what a kill while saving leaves.
    assert ("is damaged" in caplog.text) == (damage != "gone" or suffix == ".safetensors")


def test_only_damaged_checkpoints_are_an_error(tmp_path):
    chosen = filled(tmp_path)
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match="no sound checkpoint.*checksum"):
        chosen.load()


def test_another_owner_is_refused(tmp_path):
    filled(tmp_path)
    with pytest.raises(CheckpointError, match="another run.*seed: 48109 there, 5 here"):
        store(tmp_path, seed=5).load()


def test_another_version_is_refused(tmp_path, monkeypatch):
    filled(tmp_path)
    monkeypatch.setattr(pdelab, "__version__", "99.0")
    with pytest.raises(CheckpointError, match="this is 99.0"):
        store(tmp_path).load()


class _Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_a_pickle_is_refused_and_never_run(tmp_path, form):
    trap = tmp_path / "sprung"
    folder = tmp_path / "checkpoint"
    filled(folder, [10])
    path = folder / "step-0000010.safetensors"
    if form == "pickle":
        path.write_bytes(pickle.dumps(_Trap(trap)))
    else:
        torch.save({"w": _Trap(trap)}, path)
    # With the right checksum beside it, so that only the format can refuse it.
    record = json.loads(path.with_suffix(".json").read_text())
    record["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_suffix(".json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        store(folder).load()
    assert not trap.exists()


def test_a_kill_between_the_two_files_leaves_the_older_one(tmp_path, monkeypatch):
    chosen = filled(tmp_path, [10])

    def killed(path, text):
        raise KeyboardInterrupt

    monkeypatch.setattr("pdelab.files.write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        chosen.save(20, {"w": torch.ones(1)}, {})
    assert chosen.load()[0] == 10


def test_half_files_of_killed_processes_are_removed(tmp_path):
    store = CheckpointStore(tmp_path, OWNER)
    (tmp_path / ".step-0000003.safetensors.k2x9").write_bytes(b"half")
    store.save(5, {"a": torch.ones(2)}, {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-0000005.json", "step-0000005.safetensors"]


def test_a_full_disk_is_an_output_error(tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pdelab.files.write_bytes", full)
    with pytest.raises(OutputError, match="No space left"):
        store(tmp_path).save(1, {"w": torch.ones(1)}, {})


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        store(tmp_path / "file" / "checkpoint").save(1, {"w": torch.ones(1)}, {})


def test_state_that_cannot_be_kept_is_named():
    with pytest.raises(TypeError, match=r"state\.a\.0"):
        flatten({"a": [object()]})


def test_a_tree_that_was_not_made_here_is_refused():
    with pytest.raises(CheckpointError, match="cannot be read"):
        restore({}, {"tensor": "w"})


def test_a_file_in_place_of_the_folder_is_told_before_any_work(tmp_path):
    (tmp_path / "checkpoint").write_text("")
    with pytest.raises(OutputError, match="a file has the name of the folder for checkpoints; remove it"):
        store(tmp_path / "checkpoint").load()
    assert store(tmp_path / "absent").load() is None


def test_only_what_differs_is_told_of_another_owner(tmp_path):
    CheckpointStore(tmp_path, {"solver": "pinn", "solver_args": {"width": 20, "depth": 4}}).save(1, {}, {})
    other = CheckpointStore(tmp_path, {"solver": "pinn", "solver_args": {"width": 30, "depth": 4}})
    with pytest.raises(CheckpointError, match=re.escape("another run (solver_args.width: 20 there, 30 here);")):
        other.load()
