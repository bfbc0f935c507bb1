import fcntl
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from pdelab import bench, bench_run, report
from pdelab.bench import Case, load_suite, plan, read_records, run_suite, violations
from pdelab.errors import InputError, OutputError, SettingsError, UnknownName
from pdelab.manifest import checksum

COMMON = {
    *("problem", "problem_args", "solver", "solver_args", "seed", "status", "message", "metrics", "reference"),
    *("cost", "quantities", "validity", "versions", "commit", "device", "threads", "started", "files"),
}


def bench_of(suite, out, only="*", **options):
    runs = plan(load_suite(suite), only=only)
    return list(run_suite(runs, out, suite=suite, **options))


def test_every_case_is_one_record_and_failures_are_records(toys):
    out = toys / "out"
    returned = bench_of("toys", out)
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert sorted(r["key"] for r in lines) == sorted(r["key"] for r in returned)
    assert all(set(line) >= COMMON for line in lines)
    by_case = {line["case"]: line for line in lines if line["solver"] == "guess"}
    statuses = {case.partition("-v2/guess")[2]: line["status"] for case, line in by_case.items()}
    assert statuses == {
        "": "CONVERGED",
        "-good": "CONVERGED",
        "-raises": "ERROR",
        "-refuses": "REFUSED",
        "-nan": "NONFINITE",
    }
    assert by_case["line-v2/guess-raises"]["message"] == "ZeroDivisionError: the toy fell over"
    assert by_case["line-v2/guess-raises"]["problem_args"] == {"slope": 2.0}
    assert by_case["line-v2/guess"]["metrics"]["rel_l2"] == pytest.approx(0.5)
    descents = [line for line in lines if line["solver"] == "descent"]
    assert sorted(line["seed"] for line in descents) == [7193, 8117, 9311]
    assert all(line["threads"] == 1 for line in descents)
    first, second, _ = (out / f"runs/line-v2/descent/seed-{seed}" for seed in (7193, 8117, 9311))
    assert (first / "fields.pvd").exists() and (first / "figures/field.png").exists()
    assert (second / "history.csv").exists() and not (second / "fields.pvd").exists()

    # The pictures are drawn when all runs are done.
    for folder in (out / line["folder"] for line in lines if "figures/field.png" in line["files"]):
        listed = json.loads((folder / "manifest.json").read_text())["files"]
        assert {f"figures/{path.name}" for path in (folder / "figures").iterdir()} <= set(listed)
        assert not (folder / "figures.npz").exists()

    # What is done is skipped, whatever its status.
    assert bench_of("toys", out) == []
    assert list(run_suite([], out, suite="toys", force=True)) == []
    assert read_records(out) == {} and not (out / "runs").exists()


def test_the_report_draws_what_a_killed_bench_has_not(toys, caplog):
    out = toys / "out"
    (run,) = plan(load_suite("toys"), only="*-good")
    facts = bench_run.run_in_folder((run, str(out)))
    folder = out / run.folder
    missing = {name for name in facts["files"] if not (folder / name).exists()}
    assert missing == {name for name in facts["files"] if name.startswith("figures/")} != set()
    (out / "results.jsonl").write_text(json.dumps(facts) + "\n")
    report.write(report.collect([out]), out)
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert present == {*facts["files"], "run.json"}
    manifest = json.loads((folder / "manifest.json").read_text())["files"]
    assert {*manifest, "manifest.json"} == set(facts["files"])
    assert {name: checksum(folder / name) for name in manifest} == {n: f["sha256"] for n, f in manifest.items()}
    page = (out / "report.html").read_text()
    assert page.count("data:image/webp") == len(missing)

    (folder / "figures.npz").write_bytes(b"damaged")
    report.write(report.collect([out]), out)
    assert "the report lacks pictures of a run" in caplog.text
    assert (out / "report.html").read_text() == page


def test_check_names_case_value_and_limit():
    cases = [Case("p-v1", "s", limits={"rel_l2": 0.1, "cpu_s": 5.0}), Case("p-v1", "bad", limits={"rel_l2": 0.1})]
    runs = [
        bench.Run(c.name, bench.Job(c.problem, c.solver, seed=n), f"{c.solver}{n}", True, False)
        for c in cases
        for n in (3, 4, 5)
    ]

    def record(error, status="BUDGET_SPENT"):
        return {"status": status, "message": "why", "metrics": {"rel_l2": error}, "cost": {"cpu_s": 2.0}}

    good = {"s3": record(0.01), "s4": record(0.05), "s5": record(9.0)}
    good |= {"bad3": record(0.2), "bad4": record(0.3), "bad5": record(None, "NONFINITE")}
    assert violations(cases, runs, good) == ["p-v1/bad: NONFINITE: why", "p-v1/bad: rel_l2 = 0.25, limit 0.1"]
    del good["s3"]
    assert "p-v1/s: MISSING: did not run" in violations(cases, runs, good)


@pytest.mark.parametrize("status, passes", [("STAGNATED", True), ("NONFINITE", False), ("ERROR", False)])
def test_what_is_only_compared_with_may_stagnate(status, passes):
    run, record = bench.Run("p-v1/s", bench.Job("p-v1", "s"), "k", True, False), {"status": status, "message": "why"}
    line = [f"p-v1/s: {status}: why"]
    assert violations([Case("p-v1", "s")], [run], {"k": record}) == ([] if passes else line)
    assert violations([Case("p-v1", "s", limits={"rel_l2": 1.0})], [run], {"k": record}) == line


def test_an_unmeasured_quantity_is_a_violation():
    case = Case("p-v1", "s", limits={"volume": 1.0})
    runs = [bench.Run(case.name, bench.Job("p-v1", "s"), "k", False, False)]
    record = {"status": "CONVERGED", "message": "", "metrics": {}, "cost": {}, "validity": {}}
    assert violations([case], runs, {"k": record}) == ["p-v1/s: volume = no value, limit 1"]


def test_plan_selects_cases_and_seeds(toys):
    cases = load_suite("toys")
    assert {r.name for r in plan(cases, only="descent")} == {"line-v2/descent"}
    assert {r.name for r in plan(cases, only="*-good")} == {"line-v2/guess-good"}
    assert len(plan(cases, only="line")) == 8
    chosen = plan(cases, seeds=2)
    assert [r.job.seed for r in chosen if r.trained] == list(bench.SEEDS[:2])
    assert all(r.job.seed == bench.SEEDS[0] for r in chosen if not r.trained)
    assert len({r.key for r in chosen}) == len(chosen)
    with pytest.raises(UnknownName, match="no case named 'descend'; did you mean descent"):
        plan(cases, only="descend")
    with pytest.raises(SettingsError, match="seeds: expected 1 to 10, got 11"):
        plan(cases, seeds=11)


def test_keys_change_with_what_decides_the_result(toys, monkeypatch):
    case = load_suite("toys")[0]
    (key,) = {r.key for r in plan([case])}
    assert {r.key for r in plan([case])} == {key}
    assert {r.key for r in plan([Case(case.problem, "guess", problem_args={"slope": 3.0})])} != {key}
    monkeypatch.setattr(bench_run, "code_version", lambda: "other")
    assert {r.key for r in plan([case])} != {key}


def test_two_cases_of_one_name_are_refused(toys):
    with pytest.raises(SettingsError, match="two cases are called 'line-v2/guess'; give one of them a label"):
        load_suite("toys-doubled")


def test_other_folders_are_refused(toys):
    other = toys / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("do not touch")
    with pytest.raises(OutputError, match="something else than a bench"):
        bench_of("toys", other, only="*-good")
    (toys / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        bench_of("toys", toys / "file" / "out", only="*-good")
    (toys / "out").mkdir()
    (toys / "out" / "suite.json").write_text('{"suite": "quick"}')
    with pytest.raises(OutputError, match="the suite 'quick'"):
        bench_of("toys", toys / "out", only="*-good")
    assert (other / "thesis.txt").read_text() == "do not touch"
    assert [p.name for p in other.iterdir()] == ["thesis.txt"]


def test_a_scheduler_that_cannot_be_used_is_told_before_anything_is_written(toys):
    with pytest.raises(InputError, match="Dask"):
        list(run_suite([], toys / "out", suite="toys", scheduler="tcp://127.0.0.1:1"))
    assert not (toys / "out").exists()


def test_a_full_disk_is_no_result_of_a_run(toys, monkeypatch):
    def full(*arguments, **more):
        raise OutputError("No space left on device")

    (run,) = plan(load_suite("toys"), only="*-good")
    with monkeypatch.context() as patched:
        patched.setattr("pdelab.runs.save", full)
        with pytest.raises(OutputError, match="No space left"):
            bench_run.run_in_folder((run, str(toys / "out")))

    class Full:
        def outcomes(self, function, items):
            yield from ((item, OutputError("No space left on device")) for item in items)

    (toys / "out").mkdir(exist_ok=True)
    pool = Full()
    with pytest.raises(OutputError, match="No space left"):
        list(bench._run_pending([run], toys / "out", pool))
    assert read_records(toys / "out") == {}


def test_two_benches_do_not_write_to_one_folder(toys):
    out = toys / "out"
    assert list(run_suite([], out, suite="toys")) == []
    with open(out / "results.jsonl", "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match="another bench is writing there"):
            bench_of("toys", out)


def test_a_killed_bench_goes_on(toys):
    out = toys / "out"
    command = [sys.executable, "-m", "pdelab", "bench", "--suite", "toys-slow", "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    folder = out / "runs/line-v2/descent"
    try:
        wait_for(lambda: len(list(folder.glob("*/checkpoint/step-*.json"))) >= 2 and len(read_records(out)) == 1)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    done = read_records(out)
    with open(out / "results.jsonl", "a") as file:
        file.write('{"key": "half of a li')

    # The workers are gone soon after: nobody else goes on with the run.
    time.sleep(1.5)
    steps = sorted(folder.glob("*/checkpoint/*"))
    time.sleep(0.6)
    assert sorted(folder.glob("*/checkpoint/*")) == steps

    bench_run.code_version.cache_clear()
    (record,) = bench_of("toys-slow", out)
    assert record["solver"] == "descent"
    assert int(record["message"].split()[-1]) >= 2, "it started from the beginning"
    assert record["cost"]["steps"] == 12
    assert set(read_records(out)) == {*done, record["key"]}


def test_the_quick_suite_is_sound():
    cases = load_suite("quick")
    assert len({case.problem for case in cases}) >= 8
    for problem in {case.problem for case in cases}:
        mine = [case for case in cases if case.problem == problem]
        assert {"pinn", "deepxde"} <= {case.solver for case in mine}, problem
        assert {"fem", "spectral", "fd"} & {case.solver for case in mine}, problem
        assert len({case.budget for case in mine if case.solver in ("pinn", "deepxde")}) == 1, problem


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)
