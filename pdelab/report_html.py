"""report.html: one file that needs no network and no other file."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from pdelab import registry
from pdelab.errors import PdelabError
from pdelab.report import Group, Line, Record, Report, short, size
from pdelab.report_figures import error_curves, solver_colours

PICTURE_HEIGHT = 420  # pixels

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>pdelab report</title>
<style>
:root {{ color-scheme: light dark; --ink: #1c2126; --soft: #5f6973; --line: #dde1e6; --paper: #fff; --band: #f5f7f9;
  --good: #1a7f4b; --bad: #b3372f; --link: #1f5fa8; }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink: #e4e8ec; --soft: #98a2ad; --line: #333a42; --paper: #14181c;
  --band: #1b2026; --good: #58c08a; --bad: #ef8379; --link: #7db4f0; }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; max-width: 92rem; padding: 1.5rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }}
h1 {{ font-size: 1.6rem; margin: 0 0 .2rem; }} h2 {{ font-size: 1.15rem; margin: 2.6rem 0 .2rem; }}
p {{ margin: .2rem 0 .8rem; max-width: 60rem; }} .soft, caption, figcaption {{ color: var(--soft); font-size: .9em; }}
a {{ color: var(--link); text-decoration: none; }} a:hover {{ text-decoration: underline; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 13px; }}
th, td {{ padding: .3rem .5rem; border-bottom: 1px solid var(--line); text-align: left; white-space: nowrap; }}
th {{ color: var(--soft); font-weight: 600; }} thead th {{ cursor: pointer; user-select: none; }}
thead th[aria-sort=ascending]::after {{ content: " \\2191"; }}
thead th[aria-sort=descending]::after {{ content: " \\2193"; }}
td.n, th.n {{ text-align: right; }} tbody tr:hover {{ background: var(--band); }}
.ok {{ color: var(--good); }} .bad {{ color: var(--bad); }} td.why {{ white-space: normal; min-width: 14rem; }}
.tag {{ border: 1px solid var(--line); border-radius: .6em; padding: 0 .45em; font-size: .85em; color: var(--soft); }}
.env {{ width: auto; }} figure {{ margin: 0; }}
.row {{ display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; margin: .8rem 0; }}
.row h3 {{ flex-basis: 100%; font-size: .95rem; font-weight: 600; margin: .6rem 0 -.6rem; }}
.row figure {{ max-width: 100%; }}
.row img {{ max-width: 100%; max-height: 17rem; background: #fff; border: 1px solid var(--line); border-radius: 4px; }}
.row .curve img {{ width: 40rem; max-height: none; background: none; border: 0; }}
</style>
</head>
<body>
<h1>pdelab report</h1>
<p class="soft">{count}. Errors are those of the last iterate, over the same points for every solver.
Click on a column to sort.</p>
<div class="scroll"><table class="sortable">
<thead><tr>{header}</tr></thead>
<tbody>
{rows}
</tbody></table></div>
<p class="soft">Median over the seeds; <i>floor</i> is the relative L2 error of the reference itself: an error below
three floors is marked, as it cannot be told from it. <i>s to 1e-2</i>: CPU seconds until the error was below 1e-2 for
good. CPU seconds count the solver alone: references, the error along the way and files are left out.</p>
{sections}
<h2>Environment</h2>
<table class="env"><tbody>{environment}</tbody></table>
<script>
document.querySelectorAll("table.sortable thead th").forEach((head, column) => head.addEventListener("click", () => {{
  const up = head.getAttribute("aria-sort") !== "ascending";
  const body = head.closest("table").tBodies[0];
  const key = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
  const compare = (a, b) => {{
    const x = key(a), y = key(b), p = parseFloat(x), q = parseFloat(y);
    if (head.classList.contains("n")) return (isNaN(p) - isNaN(q)) || (up ? p - q : q - p) || 0;
    return up ? x.localeCompare(y) : y.localeCompare(x);
  }};
  head.parentNode.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  body.append(...[...body.rows].sort(compare));
}}));
</script>
</body>
</html>
"""

_COLUMNS = (
    ("problem", ""),
    ("solver", ""),
    ("budget", ""),
    ("runs", "n"),
    ("rel. L2", "n"),
    ("min to max", "n"),
    ("floor", "n"),
    ("rel. L1", "n"),
    ("max error", "n"),
    ("CPU s", "n"),
    ("s to 1e-2", "n"),
    ("steps", "n"),
    ("size", "n"),
    ("status", ""),
)


def page(report: Report) -> str:
    """The whole report as one HTML text."""
    lines = report.lines
    runs = sum(len(line.records) for line in lines)
    return _PAGE.format(
        count=f"{_many(runs, 'run')} of {_many(len(lines), 'case')} on {_many(len(report.groups), 'problem')}",
        header="".join(f'<th class="{kind}">{escape(title)}</th>' for title, kind in _COLUMNS),
        rows="\n".join(_row(group, line, i) for i, group in enumerate(report.groups) for line in group.lines),
        sections="\n".join(_section(group, i, solver_colours(report.groups)) for i, group in enumerate(report.groups)),
        environment="".join(
            f"<tr><th>{escape(key)}</th><td>{escape(', '.join(values))}</td></tr>"
            for key, values in report.environment.items()
        ),
    )


def _many(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _row(group: Group, line: Line, number: int) -> str:
    errors = line.values("metrics", "rel_l2")
    spread = f"{short(errors[0])} to {short(errors[-1])}" if len(errors) > 1 else ""
    error = line.median("metrics", "rel_l2")
    tag = ' <span class="tag" title="below three floors of the reference">at floor</span>' if line.at_floor else ""
    done = len(line.good) == len(line.records)
    why = f': <span class="soft">{escape(line.message)}</span>' if line.message else ""
    status = f'<td class="why"><span class="{"ok" if done else "bad"}">{escape(line.status)}</span>{why}</td>'
    solver = f'<span title="{escape(line.settings)}">{escape(line.label)}</span>'
    return "".join(
        [
            f'<tr><td title="{escape(group.settings)}"><a href="#p{number}">{escape(group.problem)}</a></td>',
            f"<td>{solver}</td><td>{escape(line.budget)}</td>",
            f'<td class="n" data-value="{len(line.records)}">{len(line.records)}</td>',
            f'<td class="n" data-value="{error}">{short(error)}{tag}</td>',
            f'<td class="n" data-value="{errors[-1] / errors[0] if errors and errors[0] else ""}">{spread}</td>',
            *(
                f'<td class="n" data-value="{value}">{short(value)}</td>'
                for value in (
                    line.floor,
                    line.median("metrics", "rel_l1"),
                    line.median("metrics", "max_abs"),
                    line.median("cost", "cpu_s"),
                    line.seconds_to(1e-2),
                )
            ),
            _count(line.median("cost", "steps")),
            f'<td class="n" data-value="{size(line).split()[0]}">{escape(size(line))}</td>',
            status,
            "</tr>",
        ]
    )


def _count(value: float | None) -> str:
    return f'<td class="n" data-value="{value}">{"–" if value is None else f"{value:.0f}"}</td>'


def _section(group: Group, number: int, colours: Mapping[str, str]) -> str:
    head = f"<h2>{escape(group.title)}</h2><p>{escape(_about(group.problem))}</p>"
    curves = error_curves(group.lines, colours)
    first = ""
    if curves:
        caption = "Lines: error while training, one for each seed. Diamonds: solvers that are not trained."
        first = f'<figure class="curve"><img alt="error over CPU seconds" src="{_embedded(curves, "svg+xml")}">'
        first += f"<figcaption>{caption}</figcaption></figure>"
    shown = {line.label: {path.stem: path for path in _shown(line.records)} for line in group.lines}
    references = [pictures.pop("reference") for pictures in shown.values() if "reference" in pictures]
    first += _picture(references[0], "reference") if references else ""
    rows = "".join(
        f'<div class="row"><h3>{escape(label)}</h3>{"".join(_picture(p, name) for name, p in pictures.items())}</div>'
        for label, pictures in shown.items()
        if pictures
    )
    return f'<section id="p{number}">{head}<div class="row">{first}</div>{rows}</section>'


def _shown(records: Sequence[Record]) -> list[Path]:
    """The figures of the first seed that has any: the field first."""
    found = next((pictures for record in records if (pictures := record.pictures())), [])
    return sorted(found, key=lambda path: (path.stem != "field", path.stem))


def _picture(path: Path, name: str) -> str:
    """A figure of the run, made smaller, so that a report of many runs can still be sent."""
    from PIL import Image

    small = io.BytesIO()
    with Image.open(path) as image:
        image.thumbnail((4 * PICTURE_HEIGHT, PICTURE_HEIGHT))
        image.convert("RGB").save(small, "webp", quality=85)
    title = escape(name.replace("_", " "))
    image_ = f'<img alt="{title}" src="{_embedded(small.getvalue(), "webp")}">'
    return f"<figure>{image_}<figcaption>{title}</figcaption></figure>"


def _embedded(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _about(problem: str) -> str:
    try:
        return registry.summary("problems", problem)
    except PdelabError:
        return ""
