"""The command `pdelab`. Exit status: 0 done, 1 ran without success, 2 wrong input."""

from __future__ import annotations

import dataclasses
import json as json_
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pdelab import __version__, registry
from pdelab.errors import InputError, OutputError, PdelabError, PluginError, check_choice
from pdelab.terminal import cell, complain, counter, logged, print_files, progress, table, warnings_in_one_line

Force = Annotated[bool, typer.Option("--force", help="Overwrite what the output folder holds of another run.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Run folder.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")]


class _Group(TyperGroup):
    """Turns what went wrong into a short message and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except PdelabError as error:
            if ctx.params.get("debug"):
                raise
            complain(str(error))
            raise typer.Exit(2 if isinstance(error, InputError | PluginError) else 1) from None
        except KeyboardInterrupt:
            complain("interrupted; what was finished or saved is kept, the same command or 'pdelab resume' goes on")
            raise typer.Exit(1) from None
        except Exception as error:
            # Exit and usage errors are typer's own business; everything else is a defect, told in one line.
            if ctx.params.get("debug") or type(error).__module__.partition(".")[0] in ("typer", "click"):
                raise
            complain(f"{type(error).__name__}: {error}\nThis should not happen; the option --debug shows where it did.")
            raise typer.Exit(1) from None


app = typer.Typer(cls=_Group, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit; --debug may stand anywhere."""
    arguments = sys.argv[1:] if argv is None else argv
    debug = ["--debug"] * ("--debug" in arguments)
    with warnings_in_one_line():
        app(args=[*debug, *(a for a in arguments if a != "--debug")], prog_name="pdelab")


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Solve partial differential equations with neural and classical solvers, and compare them fairly."""
    if version:
        print(__version__)
        raise typer.Exit


@app.command("list")
def list_(
    kind: Annotated[str, typer.Argument(help="problems, families, solvers, movers, linear, suites or all.")] = "all",
    json: Json = False,
) -> None:
    """List what can be solved, and with what."""
    kinds = {k.replace("linear_solvers", "linear"): k for k in registry.KINDS}
    check_choice("list", kind, [*kinds, "all"])
    shown = kinds.values() if kind == "all" else [kinds[kind]]
    if json:
        rows = [
            {"kind": k, "name": name, "summary": registry.summary(k, name)} for k in shown for name in registry.names(k)
        ]
        print(json_.dumps(rows, indent=2))
        return
    width = max((len(name) for k in shown for name in registry.names(k)), default=0)
    room = max(40, shutil.get_terminal_size((200, 24)).columns - width - 4)
    for k in shown:
        if not registry.names(k):
            continue
        print(f"{k.replace('_', ' ')}:")
        for name in registry.names(k):
            text = registry.summary(k, name)
            print(f"  {name:{width}}  {text if len(text) <= room else text[: room - 1] + '…'}")


@app.command()
def show(name: Annotated[str, typer.Argument(help="A problem, solver or suite.")], json: Json = False) -> None:
    """Show the equation, the settings and what goes with it."""
    from pdelab.describe import describe

    found = describe(name)
    if json:
        print(json_.dumps([dataclasses.asdict(d) for d in found], indent=2))
        return
    for description in found:
        print(f"{registry.KINDS[description.kind]} {description.name}  ({description.source})\n\n{description.text}\n")
        for key, value in description.facts.items():
            print(f"{key}: {value}")
        if description.settings:
            print("settings:")
        for key, kind, default in description.settings:
            print(f"  {key}: {kind} = {default}")
        print()


@app.command()
def doctor(json: Json = False) -> None:
    """Examine the installation: libraries, device, cache, and which plug-ins fail and why."""
    from pdelab.doctor import examine

    findings = examine()
    if json:
        print(json_.dumps([dataclasses.asdict(f) for f in findings], indent=2))
    else:
        for finding in findings:
            text = finding.text.rstrip().replace("\n", "\n    ")
            print(f"{finding.state:8}{finding.name:16}{text}")
    if any(finding.state == "broken" for finding in findings):
        raise typer.Exit(1)


@app.command()
def solve(
    problem: Annotated[str | None, typer.Argument(help="Name of the problem.", show_default=False)] = None,
    solver: Annotated[str | None, typer.Option(help="Name of the solver.", show_default=False)] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Setting of the solver.", show_default=False)
    ] = None,
    problem_set: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Setting of the problem.", show_default=False)
    ] = None,
    mesh: Annotated[Path | None, typer.Option(help="Mesh file to solve on.", show_default=False)] = None,
    state: Annotated[
        Path | None, typer.Option(help="File of 'pdelab train' with what the solver has learned.", show_default=False)
    ] = None,
    budget: Annotated[str | None, typer.Option(help="Such as 2000steps or 120s.", show_default=False)] = None,
    out: Annotated[
        Path | None, typer.Option(help="Output folder; runs/PROBLEM-SOLVER-SEED if not given.", show_default=False)
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file with any of these; options win.", show_default=False)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of all random numbers; 0 if not given.", show_default=False)] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.", show_default=False)] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of torch.", show_default=False)] = None,
    json: Json = False,
    force: Force = False,
) -> None:
    """Solve one problem and write the run folder."""
    from pdelab.config import parse_assignments, read_mapping
    from pdelab.job import Job

    known = [f.name for f in dataclasses.fields(Job)]
    values: dict[str, Any] = {} if config is None else read_mapping(config, [*known, "mesh_sha256", "state_sha256"])
    for key in ("mesh_sha256", "state_sha256"):
        values.pop(key, None)
    given = {"problem": problem, "solver": solver, "budget": budget, "seed": seed, "device": device}
    given |= {"threads": threads, "mesh": None if mesh is None else str(mesh)}
    given |= {"state": None if state is None else str(state)}
    values |= {key: value for key, value in given.items() if value is not None}
    for key, pairs in (("solver_args", set_), ("problem_args", problem_set)):
        given_there = values.get(key) or {}
        if isinstance(given_there, dict):  # anything else is refused with the other wrong values below
            values[key] = {**given_there, **parse_assignments(pairs or [])}
    if isinstance(values.get("mesh"), str):  # one name for one file, in warnings as in config.yaml
        values["mesh"] = str(Path(values["mesh"]).resolve())
    job = Job.from_mapping(values, "solve")
    job.build()
    job = job.resolved()
    folder = out or Path("runs", f"{job.problem}-{job.solver}-{job.seed}")
    from pdelab.runs import prepare_folder, write_config

    existed = os.path.exists(folder)  # also where the name is too long, which is refused below
    prepare_folder(folder, force)
    try:
        write_config(folder, job.to_mapping())
        _run(job, folder, json)
    except InputError as error:
        # Nothing is left of a run that could not start; a disk that filled up on the way keeps its checkpoints.
        kept = isinstance(error, OutputError) and any(folder.glob("checkpoint/step-*.json"))
        if not existed and not kept:
            shutil.rmtree(folder, ignore_errors=True)
        raise


@app.command()
def train(
    name: Annotated[str, typer.Argument(help="Name of an operator solver or a mover.", show_default=False)],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write what it learns.", show_default=False)],
    family: Annotated[
        str | None, typer.Option(help="Name of the family of problems, for a solver.", show_default=False)
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Setting of it.", show_default=False)
    ] = None,
    family_set: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Setting of the family.", show_default=False)
    ] = None,
    budget: Annotated[str | None, typer.Option(help="Such as 2000steps or 120s.", show_default=False)] = None,
    seed: Annotated[int, typer.Option(help="Of all random numbers.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="Threads of torch.", show_default=False)] = None,
    json: Json = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Train an operator solver or a mover; the same command goes on with a training that was cut off."""
    from pdelab.config import parse_assignments
    from pdelab.training import training

    chosen = training(name, family, parse_assignments(set_ or []), parse_assignments(family_set or []))
    chosen.check(out, budget, force)
    with progress(chosen.title, quiet=json) as report_:
        facts = chosen.run(out, budget=budget, seed=seed, device=device, threads=threads, report=report_)
    if facts is None:  # another process of the same training writes the file
        return
    if json:
        print(json_.dumps({**facts, "files": [str(out)]}, indent=2))
    else:
        parts = (facts["status"], f"{facts['steps']} steps", f"{facts['cpu_s']:.1f} CPU s", facts["message"])
        print(f"{chosen.title}: {', '.join(parts)}")
        print_files([out])
    if facts["status"] not in ("CONVERGED", "BUDGET_SPENT"):
        raise typer.Exit(1)


@app.command()
def resume(folder: Folder, json: Json = False) -> None:
    """Go on with a run that was interrupted, to the same result as if it had not been."""
    from pdelab.job import Job
    from pdelab.runs import read_config, read_result

    if (folder / "suite.json").exists():
        raise InputError(f"{folder}: holds a bench; 'pdelab bench --out {folder}' goes on with it")
    config = read_config(folder)
    if (folder / "result.json").exists():
        result = read_result(folder)
        print(json_.dumps(result, indent=2) if json else f"{folder}: this run has ended: {result['status']}")
        return
    _run(Job.from_mapping(config, str(folder / "config.yaml")), folder, json)


@app.command()
def reproduce(folder: Folder, json: Json = False) -> None:
    """Make a finished run again and compare the results, bit by bit."""
    from pdelab.comparison import reproduce as again

    with progress(f"{folder}", quiet=json) as report:
        results, environment = again(folder, report)
    same = all(d.equal for d in results)
    if json:
        print(json_.dumps({"same": same, "results": _dicts(results), "environment": _dicts(environment)}, indent=2))
    else:
        table(
            ("", "then", "now", "same"), [(d.quantity, d.first, d.second, "yes" if d.equal else "no") for d in results]
        )
        for d in environment:
            print(f"{d.quantity} was {d.first}, is {d.second}")
        print("the same result, to the last bit" if same else "another result")
    if not same:
        raise typer.Exit(1)


@app.command()
def bench(
    out: Annotated[Path, typer.Option(help="Output folder; a bench in it goes on.", show_default=False)],
    suite: Annotated[str, typer.Option(help="Name of the suite.")] = "quick",
    only: Annotated[str, typer.Option(metavar="GLOB", help="Cases, problems or solvers.")] = "*",
    seeds: Annotated[
        int | None, typer.Option(help="So many seeds for each trained solver.", show_default=False)
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes, of one thread each.")] = 1,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Dask scheduler to use instead.", show_default=False)
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "cpu",
    check: Annotated[bool, typer.Option("--check", help="Compare with the limits of the suite.")] = False,
    json: Json = False,
    force: Force = False,
) -> None:
    """Run a suite, skipping what is done, and write the report; status 1 if a run ended in an error."""
    from pdelab import bench as benches
    from pdelab.report import collect, write

    cases = benches.load_suite(suite)
    runs = benches.plan(cases, only=only, seeds=seeds, device=device)
    done = 0 if force else len({run.key for run in runs} & set(benches.read_records(out)))
    if done and not json:
        print(f"{done} of {len(runs)} runs were done before")
    options = {"suite": suite, "workers": workers, "scheduler": scheduler, "force": force}
    with counter(len(runs), done, quiet=json) as tick:
        for record in benches.run_suite(runs, out, **options):  # type: ignore[arg-type]
            tick(_line(record))
    records = benches.read_records(out)
    files = [out / "results.jsonl", *write(collect([out]), out)]
    broken = benches.violations(cases, runs, records) if check else []
    rows = [records[run.key] for run in runs if run.key in records]
    errors = [f"{row['case']} seed {row['seed']}: {row['message']}" for row in rows if row["status"] == "ERROR"]
    if json:
        print(json_.dumps({"records": rows, "violations": broken, "files": [str(f) for f in files]}, indent=2))
    else:
        print_files([*files, *sorted(out.glob("runs/*/*/*/fields.pvd"))])
        if check:
            print(*(broken or ["all limits of the suite are kept"]), sep="\n")
        if errors:
            print(f"{len(errors)} of {len(runs)} runs ended in an error:", *errors, sep="\n  ")
    if broken or errors:
        raise typer.Exit(1)


@app.command()
def linsolve(
    matrix: Annotated[Path, typer.Argument(metavar="A.mtx", help=".mtx, .mtx.gz or .bin.", show_default=False)],
    vector: Annotated[
        Path | None, typer.Argument(metavar="[b.mtx]", help="A times ones if not given.", show_default=False)
    ] = None,
    solver: Annotated[str, typer.Option(help="Name of the linear solver.")] = "auto",
    tol: Annotated[float | None, typer.Option(help="Relative residual; the solver's own if not given.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Setting of the solver.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="x.mtx", help="Where to write the solution.", show_default=False)
    ] = None,
    json: Json = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file of the solution.")] = False,
) -> None:
    """Solve a linear system from files; status 1 if the tolerance was missed, and nothing is written then."""
    from pdelab.config import parse_assignments
    from pdelab.linear_files import check_free, solve_files, write_vector

    if out is not None:
        check_free(out, force)
    solved = solve_files(matrix, vector, solver, parse_assignments(set_ or []), tol)
    result, ok = solved.result, solved.result.status.ok
    if out is not None and ok:
        write_vector(out, result.x)
    written = [str(out)] if out is not None and ok else []
    if json:
        shown = {"solver": solved.solver.name, "reason": solved.reason, "unknowns": result.x.size}
        shown |= {"b": str(vector) if vector else "A @ ones", "status": result.status.name, "message": result.message}
        print(json_.dumps({**shown, "stats": dict(result.stats), "files": written}, indent=2))
    else:
        if vector is None:
            print(f"right-hand side: A times ones{'' if solved.b.any() else ', which is zero; give a file of b'}")
        stats = result.stats
        parts = [f"{solved.solver.name}{f' ({solved.reason})' if solved.reason else ''}: {result.status.name}"]
        parts += [f"{stats['iterations']:.0f} iterations"] if "iterations" in stats else []
        parts += [f"relative residual {stats['residual']:.2e}"] if ok else []
        parts += [f"set-up {stats['setup_s']:.3f}, solve {stats['solve_s']:.3f} CPU s", result.message]
        print(", ".join(p for p in parts if p))
        if written:
            print_files([Path(f) for f in written])
    if not ok:
        raise typer.Exit(1)


@app.command()
def move(
    mesh: Annotated[Path, typer.Argument(metavar="MESH", help=".msh, .vtu, .inp or .xdmf.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Moved mesh, .vtu or .msh; a picture beside it.", show_default=False)],
    mover: Annotated[str, typer.Option(help="Name of the mover.")] = "monge-ampere",
    field: Annotated[
        str | None, typer.Option(metavar="FORMULA", help="In x, y, z: exp(-50*(x**2+y**2)).", show_default=False)
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Nodal values: .npy, .csv, .vtu, .vtk.", show_default=False)
    ] = None,
    array: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which point array of a VTK file.", show_default=False)
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Setting of the mover.", show_default=False)
    ] = None,
    json: Json = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the files.")] = False,
) -> None:
    """Move the nodes of a mesh to where a field needs them."""
    from pdelab.config import parse_assignments
    from pdelab.move_files import check_output, move_files, write

    check_output(out, force)
    with logged():
        found = move_files(mesh, mover, parse_assignments(set_ or []), field, data, array)
    files = write(found, out)
    numbers = found.numbers
    if json:
        print(json_.dumps({"mover": found.mover.name, **numbers, "files": [str(f) for f in files]}, indent=2))
        return
    print(f"{found.mover.name}: {numbers['nodes']} nodes, {numbers['cells']} cells, {numbers['inverted']} inverted")
    if found.spread is not None:
        print("sigma/mu of monitor times volume: {:.3g} before, {:.3g} after".format(*found.spread))
    print("smallest quality: {:.3g} before, {:.3g} after".format(*numbers["min_quality"]))
    print(f"{numbers['cpu_s']:.3f} CPU s")
    print_files(files)


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Bench or run folders.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="Where to write; the first folder if not given.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Write report.html, report.md and results.csv of one or more folders."""
    from pdelab.report import collect, write

    files = write(collect(folders), out or folders[0])
    print(json_.dumps([str(f) for f in files])) if json else print_files(files)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="DIR", show_default=False)],
    second: Annotated[Path, typer.Argument(metavar="DIR", show_default=False)],
    json: Json = False,
) -> None:
    """Compare errors and costs of two runs or two benches."""
    from pdelab.comparison import compare as differences

    found = differences(first, second)
    if json:
        print(json_.dumps(_dicts(found), indent=2))
        return
    table(
        ("case", "quantity", str(first), str(second), "ratio"),
        [(d.case, d.quantity, d.first, d.second, d.ratio) for d in found],
    )


@app.command()
def export(
    folder: Folder,
    resolution: Annotated[int | None, typer.Option(help="Points on each axis.", show_default=False)] = None,
    times: Annotated[int | None, typer.Option(help="Number of times.", show_default=False)] = None,
    vtkhdf: Annotated[bool, typer.Option("--vtkhdf", help="All times in one file too: fields.vtkhdf.")] = False,
    json: Json = False,
) -> None:
    """Write the fields of a run for ParaView again, at another resolution."""
    from pdelab.reexport import export as again

    with progress(f"finding the solution of {folder} again", quiet=json) as report_:
        files = again(folder, resolution, times, vtkhdf, report_)
    print(json_.dumps([str(f) for f in files])) if json else print_files(files)


@app.command()
def view(
    folder: Folder,
    screenshot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a picture instead of opening a window.", show_default=False),
    ] = None,
) -> None:
    """Look at the fields of a run."""
    from pdelab.view import view as look

    look(folder, screenshot)
    if screenshot is not None:
        print_files([screenshot])


def _run(job: Any, folder: Path, json: bool) -> None:
    """Solve into a prepared folder, say how it went, and leave with status 1 if there is no result."""
    from pdelab.job import execute
    from pdelab.runs import read_result, save

    with progress(f"{job.problem} with {job.solver}", quiet=json) as report_:
        solution = execute(job, folder, report_)
    files = save(solution, folder, config=job.to_mapping())
    result = read_result(folder)
    if json:
        print(json_.dumps(result, indent=2))
    else:
        print(_line(result))
        if result["quantities"]:
            print("quantities:", ", ".join(f"{name} = {cell(value)}" for name, value in result["quantities"].items()))
        if not solution.status.ok:
            print(f"advice: {solution.status.value}")
        print_files(files)
    if not solution.status.ok:
        raise typer.Exit(1)


def _line(record: dict[str, Any]) -> str:
    """A finished run in one line."""
    metrics, cost, floor = record["metrics"], record["cost"], record["reference"].get("floor")
    name = record.get("case") or f"{record['problem']} {record['solver']}"
    parts = [f"{name} seed {record['seed']}: {record['status']}"]
    if metrics.get("rel_l2") is not None:
        parts.append(f"relative L2 error {metrics['rel_l2']:.3g}")
        parts.append(f"reference floor {floor:.1g}" if floor is not None else "")
    if cost.get("cpu_s") is not None:
        parts.append(f"{cost['cpu_s']:.2f} CPU s")
    return ", ".join(p for p in [*parts, record["message"]] if p)


def _dicts(rows: Iterable[Any]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(row) for row in rows]
