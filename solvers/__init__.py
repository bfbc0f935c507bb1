"""Solvers, one file each: `pdelab.solvers.PINN` and so on, loaded on first use."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """The solver class of that name, found through the registry."""
    from pdelab import registry

    for entry in registry.entries("solvers").values():
        if entry.target.partition(":")[2] == name:
            return registry.load("solvers", entry.name)
    raise AttributeError(f"module 'pdelab.solvers' has no attribute {name!r}")
