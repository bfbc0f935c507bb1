"""The fields of a finished run, written again at another resolution."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from pdelab.errors import InputError
from pdelab.export import SERIES, export_fields, export_series
from pdelab.files import write_text
from pdelab.job import Job, execute
from pdelab.manifest import checksums
from pdelab.runs import CONFIG, MANIFEST, RESULT, read_config, read_manifest, read_result
from pdelab.snapshots import check_request, take
from pdelab.solver import Progress
from pdelab.staging import staged


def export(
    folder: Path,
    resolution: int | None = None,
    times: int | None = None,
    vtkhdf: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
) -> list[Path]:
    """Find the solution of a run again and write its fields; result.json and manifest.json then name these files.

    A trained run continues from its last checkpoint; others are solved again.

    Args:
        folder: of the run.
        resolution: points on each axis, see `pdelab.snapshots.take`.
        times: number of times.
        vtkhdf: write fields.vtkhdf too, see `pdelab.export.export_series`.
        report: called with the progress.

    Returns:
        The files of the fields.

    Raises:
        InputError: the folder holds no finished run, or it has no such fields.
        OutputError: the folder cannot be written; it is then as it was before.
    """
    result, manifest = read_result(folder), read_manifest(folder)
    job = Job.from_mapping(read_config(folder), str(folder / CONFIG))
    problem, _ = job.build()
    check_request(problem, resolution, times)
    if vtkhdf and problem.time is None:
        raise InputError(f"{problem.name}: a steady problem has no series for a .vtkhdf file; leave --vtkhdf out")
    snapshots = take(execute(job, folder, report), resolution, times)
    with staged(folder, last=RESULT) as new:
        export_fields(snapshots, new)
        if vtkhdf:
            export_series(snapshots, new)
        fields = {path.relative_to(new).as_posix(): path for path in new.rglob("*") if path.is_file()}
        kept = [name for name in result["files"] if not name.startswith(("fields/", "fields."))]
        result["files"] = sorted([*kept, *fields])
        write_text(new / RESULT, json.dumps(result, indent=2, allow_nan=False) + "\n")
        old = {name: facts for name, facts in manifest["files"].items() if name in kept}
        manifest["files"] = dict(sorted((old | checksums(fields | {RESULT: new / RESULT})).items()))
        write_text(new / MANIFEST, json.dumps(manifest, indent=2) + "\n")
    if not vtkhdf:
        (folder / SERIES).unlink(missing_ok=True)
    return [folder / name for name in sorted(fields, key=lambda name: (name.startswith("fields/"), name))]
