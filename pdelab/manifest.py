"""Where and with what a run was made, and the checksums of its files: manifest.json."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from pdelab.errors import InputError
from pdelab.results import commit
from pdelab.solution import Solution

_PACKAGES = ("numpy", "scipy", "torch", "torch-geometric", "deepxde", "scikit-fem", "pyamg", "gpytorch", "meshio")


def manifest(solution: Solution, files: Mapping[str, Path]) -> dict[str, Any]:
    """The object of manifest.json; `files` gives the place of each file under the name that it has in the run."""
    import pdelab

    versions = {"pdelab": pdelab.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    hardware = {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_mb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20),
        "gpu": torch.cuda.get_device_name() if solution.device.startswith("cuda") else None,
    }
    return {
        "versions": versions,
        "hardware": hardware,
        "commit": commit(),
        "seed": solution.seed,
        "device": solution.device,
        "threads": solution.threads,
        "started": solution.started,
        "files": checksums(files),
    }


def checksums(files: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Name -> digest and length, sorted by name.

    Raises:
        InputError: a file cannot be read.
    """
    return {name: {"sha256": checksum(path), "bytes": path.stat().st_size} for name, path in sorted(files.items())}


def checksum(path: Path) -> str:
    """The SHA-256 of a file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def _processor() -> str:
    """The model name of the processor, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
