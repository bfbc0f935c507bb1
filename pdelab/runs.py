"""The run folder: config.yaml, result.json, history.csv, manifest.json, fields, figures, weights."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pdelab.errors import InputError, OutputError, SettingsError
from pdelab.files import write_bytes, write_text
from pdelab.manifest import checksum, manifest
from pdelab.results import identity, plain, record, scored, settings
from pdelab.shape_of_record import misshapen
from pdelab.solution import Solution
from pdelab.staging import staged

FILES = ("mesh", "state")
"""What a job reads besides its settings."""
CONFIG, RESULT, MANIFEST, WEIGHTS = "config.yaml", "result.json", "manifest.json", "checkpoint/final.safetensors"
ENTRIES = (
    CONFIG,
    RESULT,
    "history.csv",
    MANIFEST,
    "checkpoint",
    "fields",
    "fields.pvd",
    "fields.vtkhdf",
    "inspect.py",
    "figures",
    "figures.npz",
)
"""Everything that a run may put into its folder; nothing else in it is ever touched."""


def prepare_folder(folder: Path, force: bool = False) -> Path:
    """Make the folder of a new run; `force` removes what another run left in it, and only that.

    Raises:
        OutputError: it holds another run (without force), is no folder or cannot be written.
    """
    folder = Path(folder)
    _make(folder)
    held = [name for name in ENTRIES if os.path.lexists(folder / name)]
    if held and not force:
        raise OutputError(
            f"{folder}: holds another run ({', '.join(held)}); give another folder, "
            f"continue it with 'pdelab resume {folder}', or overwrite it with --force"
        )
    try:
        for name in held:
            _remove(folder / name)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be cleared: {error}") from error
    return folder


def write_config(folder: Path, config: Mapping[str, Any]) -> Path:
    """Write config.yaml at the start of a run: the resolved job, and the checksums of its mesh and state files.

    Args:
        folder: of the run.
        config: problem, problem_args, solver, solver_args, mesh (a file or None), budget, seed, device, threads.

    Raises:
        OutputError: the file cannot be written.
    """
    import yaml

    stored = _resolved(config)
    for key in FILES:
        if stored.get(key):
            stored[f"{key}_sha256"] = checksum(Path(stored[key]))
    path = Path(folder) / CONFIG
    try:
        write_text(path, yaml.safe_dump(stored, sort_keys=False, allow_unicode=True))
    except OSError as error:
        raise OutputError(f"{path}: cannot write: {error.strerror or error}") from error
    return path


def read_config(folder: Path) -> dict[str, Any]:
    """The job in config.yaml, without the checksums of its files, which are compared.

    Raises:
        InputError: there is none, it is no plain YAML mapping, or the mesh or state file is missing or has changed.
    """
    path = Path(folder) / CONFIG
    if not path.exists():
        raise InputError(f"{folder}: no {CONFIG} there; is it the folder of a run?")
    config = _load(path)
    for key in FILES:
        known = config.pop(f"{key}_sha256", None)
        if config.get(key):
            found = checksum(Path(str(config[key])))
            if found != known:
                raise InputError(f"{config[key]}: the {key} has changed since the run (sha256 {found[:12]}...)")
    return config


def config_of(solution: Solution) -> dict[str, Any]:
    """The config of a solution that was found from Python; trained solvers get their steps as budget."""
    solver, steps = solution.solver, solution.stats.get("steps")
    return {
        "problem": identity("problems", solution.problem),
        "problem_args": plain(solution.problem.parameters),
        "solver": None if solver is None else identity("solvers", solver),
        "solver_args": {} if solver is None else plain(settings(solver)),
        "mesh": None,
        "budget": f"{int(steps)}steps" if steps and getattr(solver, "trained", False) else None,
        "seed": solution.seed,
        "device": solution.device.partition(":")[0],
        "threads": solution.threads,
    }


def read_result(folder: Path) -> dict[str, Any]:
    """The object of result.json.

    Raises:
        InputError: there is none, or it is not what pdelab writes.
    """
    result = _read_json(Path(folder), RESULT)
    if wrong := misshapen(result):
        path = Path(folder, RESULT)
        raise InputError(f"{path}: not written by pdelab, or damaged: {', '.join(wrong)} missing or of a wrong type")
    return result


def read_manifest(folder: Path) -> dict[str, Any]:
    """The object of manifest.json; errors as `read_result`."""
    return _read_json(Path(folder), MANIFEST)


def save(
    solution: Solution,
    folder: Path,
    force: bool = False,
    config: Mapping[str, Any] | None = None,
    draw: bool = True,
) -> list[Path]:
    """Write everything there is about a run; all of it appears at the end, result.json last, or nothing does.

    A folder that `write_config` prepared for this very run is completed, and its checkpoint kept; one of
    another run is refused, or with `force` replaced.

    Args:
        solution: what to save, whatever its status.
        folder: made if it is missing, with its parents.
        force: replace another run.
        config: as `write_config`; found from the solution if None.
        draw: False leaves the pictures, named in result.json already, to `pdelab.drawing.draw_stored`.

    Returns:
        The files written, and config.yaml.

    Raises:
        OutputError: the folder holds another run, cannot be written, or the disk is full.
    """
    from pdelab.drawing import STORED, store
    from pdelab.export import export_fields
    from pdelab.figures import write_figures
    from pdelab.paraview import write_inspect
    from pdelab.scene import scene
    from pdelab.snapshots import take

    folder = Path(folder)
    config = config_of(solution) if config is None else config
    _make(folder)
    another = _holds_another(folder, config)
    if another and not force:
        raise OutputError(f"{folder}: holds another run ({another}); give another folder, or force=True to replace it")
    error = scored(solution)
    with staged(folder, last=RESULT) as new:
        if another or not (folder / CONFIG).exists():
            write_config(new, config)
        write_text(new / "history.csv", history_csv(solution))
        snapshots = take(solution)
        export_fields(snapshots, new)
        write_inspect(new, solution.problem, folder, lines=next(iter(solution.lines), None))
        if draw:
            write_figures(scene(snapshots, error), new / "figures")
        if another:
            _remove(folder / "checkpoint")
            _remove(folder / STORED)
        weights = _write_weights(solution, folder)
        written = {p.relative_to(new).as_posix(): p for p in new.rglob("*") if p.is_file()} | weights
        written.setdefault(CONFIG, folder / CONFIG)
        later = [] if draw else store(scene(snapshots, error), new)
        files = sorted([*written, *later, MANIFEST, RESULT])
        result = record(solution, error=error, files=files)
        write_text(new / RESULT, json.dumps(result, indent=2, allow_nan=False) + "\n")
        written[RESULT] = new / RESULT
        write_text(new / MANIFEST, json.dumps(manifest(solution, written), indent=2) + "\n")
    return [folder / name for name in files]


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{folder}: no {name} there; the run has not ended, or it is no run folder") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(found).__name__}")
    return found


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: no folder can be made there: {error.strerror or error}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{folder}: you may not write there")


def _holds_another(folder: Path, config: Mapping[str, Any]) -> str:
    """What shows that the folder holds another run, or ''."""
    if (folder / RESULT).exists():
        return RESULT
    if (folder / CONFIG).exists() and not _same(folder / CONFIG, config):
        return f"{CONFIG} of other settings"
    return ""


def _same(path: Path, config: Mapping[str, Any]) -> bool:
    stored = _load(path)
    for key in FILES:
        stored.pop(f"{key}_sha256", None)
    return stored == _resolved(config)


def _resolved(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config as plain values, with the full path of the mesh file."""
    stored = plain(config)
    return stored | {"mesh": str(Path(stored["mesh"]).resolve())} if stored.get("mesh") else stored


def _load(path: Path) -> dict[str, Any]:
    """A mapping from a YAML file; tags, which could run code, are refused."""
    import yaml

    try:
        config = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise SettingsError(f"{path}: expected a mapping such as 'problem: poisson-v1', got {type(config).__name__}")
    return config


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def history_csv(solution: Solution) -> str:
    """The history as the text of a .csv file, numbers in full precision; a header only if there is none."""
    columns = {name: list(values) for name, values in solution.history.items()} or {"step": [], "cpu_s": []}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


def _write_weights(solution: Solution, folder: Path) -> dict[str, Path]:
    """The parameters of a network, which holds no code; nothing for other fields."""
    if not isinstance(solution.field, torch.nn.Module):
        return {}
    from safetensors.torch import save as to_bytes

    # Copies, as layers that share their weights cannot be stored otherwise.
    state = {k: v.detach().cpu().contiguous().clone() for k, v in solution.field.state_dict().items()}
    path = folder / WEIGHTS
    path.parent.mkdir(exist_ok=True)
    write_bytes(path, to_bytes(state))
    return {WEIGHTS: path}
