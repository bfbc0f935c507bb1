"""What this installation consists of and what is wrong with it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pdelab import registry

LIBRARIES = """
    numpy scipy torch torch-geometric deepxde scikit-fem pyamg meshio gmsh pyvista h5py
    matplotlib joblib pydantic pyyaml rich typer safetensors gpytorch
"""
EXTRAS = ("dask", "distributed", "tensorboard")


@dataclass(frozen=True)
class Finding:
    """One line of the report: `state` is ok, missing (an extra that is not installed) or broken."""

    name: str
    state: str
    text: str


def examine() -> list[Finding]:
    """Every check, in the order of the report; imports all plug-ins."""
    return [*_machine(), *_libraries(), *_cache(), *_plugins()]


def _machine() -> list[Finding]:
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU; everything runs on the CPU"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return [
        Finding("python", "ok", f"{platform.python_version()} on {platform.platform()}"),
        Finding("processor", "ok", f"{cores} cores, {torch.get_num_threads()} torch threads"),
        Finding("device", "ok", device),
    ]


def _libraries() -> list[Finding]:
    found = []
    for name in (*LIBRARIES.split(), *EXTRAS):
        try:
            found.append(Finding(name, "ok", importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            extra = name in EXTRAS
            found.append(Finding(name, "missing" if extra else "broken", f"not installed: pip install {name}"))
    return found


def _cache() -> list[Finding]:
    from pdelab.reference import cache_folder

    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return [Finding("cache", "broken", f"{folder}: {error}; set PDELAB_CACHE to a folder that can be written")]
    return [Finding("cache", "ok", f"{folder}, {_megabytes(folder):.1f} MB")]


def _plugins() -> list[Finding]:
    broken = registry.failures()
    found = [Finding(name, "broken", text) for name, text in broken.items()]
    for kind in registry.KINDS:
        for lost in registry.conflicts(kind):
            kept = registry.entries(kind)[lost.name]
            text = f"named by {lost.distribution} too; {kept.distribution} keeps the name"
            found.append(Finding(f"{kind}: {lost.name}", "broken", text))
    good = sum(len(registry.names(kind)) for kind in registry.KINDS) - len(broken)
    return [Finding("plug-ins", "broken" if found else "ok", f"{good} loaded, {len(broken)} failed"), *found]


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
