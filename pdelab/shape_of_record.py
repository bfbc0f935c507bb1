"""The shape of the record of a run: tells a damaged or foreign file from one that pdelab wrote."""

from __future__ import annotations

from typing import Any

SHAPE: dict[str, type | tuple[type, ...]] = {
    "problem": str,
    "problem_args": dict,
    "solver": (str, type(None)),
    "solver_args": dict,
    "seed": int,
    "status": str,
    "message": str,
    "metrics": dict,
    "reference": dict,
    "cost": dict,
    "validity": dict,
}
"""Key of result.json -> type of its value; those that everything which reads records relies on."""

LINE: dict[str, type | tuple[type, ...]] = {**SHAPE, "key": str, "case": str, "folder": str}
"""The same for a line of results.jsonl."""


def misshapen(facts: Any, shape: dict[str, type | tuple[type, ...]] = SHAPE) -> list[str]:
    """The keys that are missing or hold something of another type; every key if it is no mapping."""
    return [
        key for key, kind in shape.items() if not isinstance(facts, dict) or not isinstance(facts.get(key, ...), kind)
    ]
