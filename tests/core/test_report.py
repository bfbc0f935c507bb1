import csv
import json
import re
import shutil
import subprocess

import pytest

from pdelab import report
from pdelab.errors import InputError, OutputError
from pdelab.report import collect, markdown, table_csv, write

HISTORY = "step,cpu_s,loss,error\n0,0.5,9,1.0\n1,1.0,5,nan\n2,2.0,4,0.005\n3,4.0,3,0.02\n4,8.0,2,0.004\n"


def facts(solver="pinn", seed=7193, error=0.004, floor=1e-3, status="BUDGET_SPENT", label="", **cost):
    case = f"burgers-v1/{solver}" + (f"-{label}" if label else "")
    return {
        "problem": "burgers-v1",
        "problem_args": {"viscosity": 0.01},
        "solver": solver,
        "solver_args": {},
        "seed": seed,
        "status": status,
        "message": "" if error is not None else "it <failed>",
        "metrics": {} if error is None else {"rel_l2": error, "rel_l1": error / 2, "max_abs": 2 * error},
        "reference": {"kind": "exact", "floor": floor},
        "cost": {"cpu_s": 8.0, "steps": 4, "n_parameters": 1234, **cost},
        "validity": {},
        "versions": {"pdelab": "0.1.0", "torch": "2.13"},
        "commit": "abc",
        "device": "cpu",
        "threads": 1,
        "started": "2026-03-04T05:06:07+00:00",
        "files": [],
        "key": f"{case}{seed}",
        "case": case,
        "budget": "8s" if solver == "pinn" else None,
        "folder": f"runs/{case}/seed-{seed}",
    }


@pytest.fixture
def folder(tmp_path):
    """A bench: pinn with three seeds, one of which failed, and fem at the floor, with a picture."""
    from matplotlib.figure import Figure

    rows = [facts(), facts(seed=8117, error=0.1), facts(seed=9311, error=None, status="NONFINITE")]
    rows.append(facts("fem", error=0.002, cpu_s=0.5, n_parameters=None, dofs=99))
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"half')
    for row in rows[:2]:
        run = tmp_path / row["folder"]
        run.mkdir(parents=True)
        (run / "history.csv").write_text(HISTORY)
    figures = tmp_path / rows[3]["folder"] / "figures"
    figures.mkdir(parents=True)
    Figure(figsize=(9, 6)).savefig(figures / "field.png")
    return tmp_path


def line(folder, label):
    return next(line for line in collect([folder]).lines if line.label == label)


def test_median_and_spread_over_the_seeds_that_have_a_result(folder):
    pinn = line(folder, "pinn")
    assert pinn.values("metrics", "rel_l2") == [0.004, 0.1]
    assert pinn.median("metrics", "rel_l2") == pytest.approx(0.052)
    assert pinn.status == "2 BUDGET_SPENT, 1 NONFINITE"
    assert pinn.message == "it <failed>"
    assert report.size(pinn) == "1234 parameters"
    assert report.size(line(folder, "fem")) == "99 dofs"


def test_the_floor_is_told(folder):
    assert line(folder, "fem").at_floor
    assert not line(folder, "pinn").at_floor


def test_a_curve_skips_what_was_not_measured(folder):
    assert line(folder, "pinn").records[0].curve() == ([0.5, 2.0, 4.0, 8.0], [1.0, 0.005, 0.02, 0.004])
    assert line(folder, "fem").records[0].curve() == ([], [])


def test_seconds_to_an_error_count_only_if_it_stays_below(folder):
    pinn, fem = line(folder, "pinn"), line(folder, "fem")
    assert pinn.records[0].seconds_to(1e-2) == 8.0
    assert pinn.records[0].seconds_to(0.5) == 2.0
    assert pinn.records[1].seconds_to(1e-2) == float("inf")
    assert pinn.seconds_to(1e-2) is None
    assert fem.seconds_to(1e-2) == 0.5
    assert fem.seconds_to(1e-3) is None


def test_the_newest_record_of_a_case_and_seed_counts(folder):
    newer = facts("fem", error=0.5, cpu_s=0.5) | {"key": "another"}
    text = (folder / "results.jsonl").read_text().removesuffix('{"half')
    (folder / "results.jsonl").write_text(text + json.dumps(newer) + "\n")
    assert line(folder, "fem").values("metrics", "rel_l2") == [0.5]


def test_cases_that_differ_in_settings_are_told_apart(tmp_path):
    rows = [facts(label="x", seed=7193) | {"solver_args": {"width": w, "depth": 4}, "key": str(w)} for w in (8, 16)]
    for row in rows:
        (tmp_path / row["key"]).mkdir()
        (tmp_path / row["key"] / "results.jsonl").write_text(json.dumps(row) + "\n")
    labels = [line.label for line in collect([tmp_path / "8", tmp_path / "16"]).lines]
    assert labels == ["pinn-x (width=16)", "pinn-x (width=8)"]


def test_html_is_one_file_that_needs_no_network(folder):
    files = write(collect([folder]), folder)
    assert [f.name for f in files] == ["report.html", "report.md", "results.csv"]
    html = files[0].read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert sources and all(s.startswith(("data:", "#")) for s in sources)
    assert "//" not in re.sub(r'"data:[^"]*"', "", html).replace("</", "")
    assert "it &lt;failed&gt;" in html and "it <failed>" not in html
    assert "at floor" in html and "abc" in html and "2.13" in html
    assert html.count("data:image/svg+xml") == 1
    assert html.count("data:image/webp") == 1


def test_tables(folder):
    rows = list(csv.DictReader(table_csv(collect([folder])).splitlines()))
    assert len(rows) == 4
    assert {r["seed"] for r in rows if r["solver"] == "pinn"} == {"7193", "8117", "9311"}
    assert [r["rel_l2"] for r in rows if r["status"] == "NONFINITE"] == [""]
    text = markdown(collect([folder]))
    assert "| fem |" in text and "0.002 (at floor)" in text and "0.004 to 0.1" in text


def test_folders_without_runs_are_refused(tmp_path):
    with pytest.raises(InputError, match="no result.json"):
        collect([tmp_path])
    (tmp_path / "results.jsonl").write_text('{"key": "a"}\n[]\n5\n' + json.dumps(facts() | {"metrics": 7}))
    with pytest.raises(InputError, match="no run has finished yet"):
        collect([tmp_path])
    (tmp_path / "results.jsonl").write_text("")
    with pytest.raises(InputError, match="no run has finished yet"):
        collect([tmp_path])


def test_a_place_that_cannot_be_written(folder):
    (folder / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write(collect([folder]), folder / "file")


BROWSER = next((b for b in ("chromium", "chromium-browser", "google-chrome") if shutil.which(b)), None)
SORT = """<script>
const heads = [...document.querySelectorAll("table.sortable thead th")];
const first = () => document.querySelector("table.sortable tbody tr").cells[1].textContent;
const column = heads.findIndex(h => h.textContent === "rel. L2");
heads[column].click(); const up = first(); heads[column].click(); const down = first();
const images = [...document.images].every(i => i.complete && i.naturalWidth > 0);
document.title = [up, down, images, document.body.scrollWidth <= innerWidth].join(" ");
</script></body>"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_in_a_browser_columns_sort_and_pictures_load(folder, tmp_path):
    page = write(collect([folder]), folder)[0]
    page.write_text(page.read_text().replace("</body>", SORT))
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--window-size=1400,1000", "--virtual-time-budget=3000", "--dump-dom", page.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert re.search("<title>(.*?)</title>", dom)[1] == "fem pinn true true"
