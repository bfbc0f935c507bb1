"""Checks of a mesh file before it is parsed: numbers that would make a reader allocate or wait without bound."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from pdelab.errors import MeshError

SMALL = 10_000_000  # numbers up to this are always believed: an array that long is 80 MB


def check_counts(path: Path) -> None:
    """Refuse a file that declares counts or tags far beyond its own size.

    Raises:
        MeshError: such a number, an include, or a reference to something that is not a plain file.
    """
    check = {".msh": _check_gmsh, ".inp": _check_abaqus, ".xdmf": _check_xdmf}.get(path.suffix.lower())
    if check is not None:
        check(path)


def _believe(path: Path, what: str, number: int, size: int) -> None:
    """Refuse a number larger than the file that holds it."""
    if number > max(SMALL, size):
        raise MeshError(f"{path}: {what} {number} cannot be right in a file of {size} bytes; the file is damaged")


def _check_gmsh(path: Path) -> None:
    raw = path.read_bytes()
    header = re.search(rb"\$MeshFormat\s+(\d)\S*\s+(\d)", raw)
    if header is None:
        # No Gmsh file: the reader says so.
        return
    data = re.search(rb"\$\w*Data\b", raw)
    if header[2] == b"1":
        for count in re.findall(rb"\$(?:PhysicalNames|Nodes|Elements|Periodic)\s*\n\s*(\d{8,})", raw):
            _believe(path, "the count", int(count), len(raw))
        if header[1] == b"4":
            _check_gmsh_binary(path, raw)
        return
    # Whole numbers before the data are counts and tags; a coordinate that long without a decimal point is refused
    # too, since a damaged file can have it read as a tag.
    for found in re.findall(rb"(?<![\w.+-])\d{8,}(?![\w.])", raw[: data.start() if data else None]):
        _believe(path, "the count, tag or coordinate", int(found), len(raw))
    nodes = re.search(rb"\$Nodes\s+\d+\s", raw)
    if header[1] == b"2" and nodes:
        # Tags and coordinates are one stream of numbers here: one that is lost or added shifts them.
        stream = np.fromstring(raw[nodes.end() : raw.find(b"$EndNodes")].decode(), sep=" ")
        _believe(path, "the node tag", int(np.nan_to_num(stream[::4]).max(initial=0)), len(raw))


def _check_gmsh_binary(path: Path, raw: bytes) -> None:
    """Look at the header of $Elements, and walk the blocks of $Nodes, of a binary file of version 4.1."""
    for name in (b"$Elements\n", b"$Nodes\n"):
        at = raw.find(name) + len(name)
        if at < len(name):
            return
        blocks, total, _, _ = _integers(path, raw, at, 4)
        _believe(path, "the number of blocks", blocks, len(raw))
        _believe(path, "the count", total, len(raw))
    at += 32
    for _ in range(blocks):
        (count,) = _integers(path, raw, at + 12, 1)
        tags = _integers(path, raw, at + 20, count)
        _believe(path, "the node tag", max(tags, default=0), len(raw))
        at += 20 + 32 * count


def _integers(path: Path, raw: bytes, at: int, count: int) -> list[int]:
    if at + 8 * count > len(raw):
        raise MeshError(f"{path}: the file ends before its declared content; it is truncated or damaged")
    return [int(v) for v in np.frombuffer(raw, "<u8", count, at)]


def _check_abaqus(path: Path) -> None:
    raw = path.read_bytes()
    if re.search(rb"(?im)^\s*\*\s*INCLUDE", raw):
        raise MeshError(f"{path}: INCLUDE is not followed; join the files into one")
    for first, last in re.findall(rb"(?i)GENERATE[^\n]*\n\s*(\d+)\s*,\s*(\d+)", raw):
        _believe(path, "the length of a generated set", int(last) - int(first), len(raw))


def _check_xdmf(path: Path) -> None:
    raw = path.read_text(encoding="utf-8", errors="replace")
    for kind, text in re.findall(r"<DataItem[^>]*Format\s*=\s*[\"'](HDF|Binary)[\"'][^>]*>([^<]*)<", raw):
        name = text.strip().split(":")[0]
        beside = path.parent / name if kind == "HDF" else Path(name)
        if not beside.is_file():
            raise MeshError(f"{path}: its data file {beside} does not exist")
        if kind == "HDF":
            _check_hdf(path, beside)


def _check_hdf(path: Path, beside: Path) -> None:
    import h5py

    try:
        with h5py.File(beside, "r") as file:
            for name in file:
                entry = file[name]
                if isinstance(entry, h5py.Dataset):
                    # Compression shrinks an array about a thousandfold at most.
                    _believe(path, f"the size of {name}", entry.nbytes // 1000, beside.stat().st_size)
    except MeshError:
        raise
    except Exception as error:
        raise MeshError(f"{path}: its data file {beside} cannot be read: {error}") from error
