"""Pages of figures, whole in one file: Plotly's program is in them, and no network is asked for anything.

    write_page(Path("report.html"), report_page(results))

Names, values and reasons come from study files and libraries: all of them are escaped.
"""

from __future__ import annotations

import base64
import gzip
import html
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper import confirmed, figures
from sweeper.errors import UsageError
from sweeper.figures import style
from sweeper.results import Results, headline, trial_rows
from sweeper.terminal import Shown, duration, number

if TYPE_CHECKING:
    from sweeper.ledger import TrialView

# Parallel coordinates need eval, by which Plotly writes its program of the graphics card. Nothing is fetched.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:"
)
_STYLE = """
body { font: 15px/1.5 system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif;
  color: #222; background: #f4f5f7; margin: 0; }
main { max-width: 1080px; margin: 0 auto; padding: 24px 16px 48px; }
h1 { font-size: 24px; line-height: 1.3; margin: 0 0 4px; }
h2 { font-size: 16px; margin: 0 0 10px; }
.about { color: #555; margin: 0 0 20px; }
section { background: #fff; border: 1px solid #e1e4e8; border-radius: 8px; margin: 0 0 18px; padding: 8px; }
section > h2 { margin: 10px 12px 0; } section > p { margin: 2px 12px 0; font-size: 13px; color: #555; }
section.text { padding: 16px 20px; } section.text > h2 { margin: 0 0 10px; }
.wide { overflow-x: auto; }
.below { margin: 8px 12px 10px; } .below > p { margin: 0 0 6px; font-size: 13px; }
table { border-collapse: collapse; font-size: 13px; white-space: nowrap; }
th, td { text-align: left; padding: 4px 12px 4px 0; border-bottom: 1px solid #eceff1; }
th { cursor: pointer; color: #444; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
tr.best td { font-weight: 600; background: #eaf3fa; }
nav a { margin-right: 14px; color: #0072B2; }
"""
_DRAW = """
async function program() {
  const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), c => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
}
program().then(() => Promise.all([...document.querySelectorAll("script[data-figure]")].map(source => {
  const figure = JSON.parse(source.textContent);
  const image = { format: "png", scale: 2, filename: source.dataset.figure };
  const config = { responsive: true, displaylogo: false, toImageButtonOptions: image };
  return Plotly.newPlot(source.previousElementSibling, figure.data, figure.layout, config);
}))).then(() => { document.body.dataset.drawn = "yes"; })
  .catch(error => { document.body.prepend("This page cannot be drawn by this browser: " + error); });
for (const head of document.querySelectorAll("th")) head.addEventListener("click", () => {
  const body = head.closest("table").tBodies[0], at = head.cellIndex;
  const up = head.dataset.up !== "yes";
  head.dataset.up = up ? "yes" : "no";
  const key = row => row.cells[at].dataset.value ?? row.cells[at].textContent;
  const compare = (a, b) => isNaN(a) || isNaN(b) || a === "" || b === "" ? a.localeCompare(b) : a - b;
  body.append(...[...body.rows].sort((a, b) => (up ? 1 : -1) * compare(key(a), key(b))));
});
"""


def report_page(results: Results) -> str:
    """The report of a study: every figure, and the table of its trials."""
    below = {"finalists": _finalists(results)}
    parts = [
        figure_section(name, figures.described(results, name), below.get(name, ""))
        for name in figures.FIGURES
    ]
    parts.append(text_section("All trials", _table(results)))
    title = f"{results.name}: {headline(results)}"
    return page(title, [_about(results), *parts])


def write_report(results: Results, folder: Path) -> None:
    """Write the report into a folder: ``report.html``, and each figure as Plotly's ``figures/NAME.json``."""
    write_page(folder / "report.html", report_page(results))
    (folder / "figures").mkdir()
    for name in figures.FIGURES:
        text = figures.to_json(figures.described(results, name))
        (folder / "figures" / f"{name}.json").write_text(text, encoding="utf-8")


def page(title: str, parts: Iterable[str]) -> str:
    """A page of parts that are HTML; the title is text."""
    shown = html.escape(title)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{shown}</title><style>{_STYLE}</style></head>\n<body><main>\n<h1>{shown}</h1>\n"
        + "\n".join(parts)
        + f'\n</main>\n<script id="plotly" type="text/plain">{_packed_plotly()}</script>\n'
        f"<script>{_DRAW}</script></body></html>\n"
    )


def write_page(file: Path, text: str) -> None:
    """Write a page, whole or not at all; an older one of that name, or where a link leads, is replaced.

    Raises:
        UsageError: the name is that of a folder or a device, or its folder is missing.
    """
    if file.is_dir():
        raise UsageError(f"{file} is a folder: give the page a file's name, such as {file / 'report.html'}")
    if file.exists() and not file.is_file():
        raise UsageError(f"{file} is a device or a pipe: give the page a file's name, such as report.html")
    file = Path(os.path.realpath(file))
    if not file.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {file.absolute().parent} to write {file.name} into")
    number, unfinished = tempfile.mkstemp(dir=file.absolute().parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(number, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.chmod(unfinished, 0o644)
        os.replace(unfinished, file)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise


@cache
def _packed_plotly() -> str:
    # Without a time in it, so that the same study gives the same page.
    return base64.b64encode(gzip.compress(figures.plotly_script().encode(), 6, mtime=0)).decode()


def figure_section(name: str, description: Mapping[str, Any], below: str = "") -> str:
    """A figure with its title; ``below`` is HTML that stands under it."""
    untitled, title, subtitle = style.untitled(description)
    # In JSON a < stands only within texts, where its escape means the same and ends no script.
    data = figures.to_json(untitled).replace("<", "\\u003c")
    said = f"<h2>{html.escape(title)}</h2><p>{html.escape(subtitle)}</p>"
    return (
        f'<section id="{html.escape(name)}">{said}<div></div>'
        f'<script type="application/json" data-figure="{html.escape(name)}">{data}</script>{below}</section>'
    )


def text_section(title: str, body: str) -> str:
    return f'<section class="text"><h2>{html.escape(title)}</h2><div class="wide">{body}</div></section>'


def _about(results: Results) -> str:
    study, status = results.study, results.status
    counts = ", ".join(f"{count} {state}" for state, count in status["trials"].items() if count)
    because = f" ({status['ended_because']})" if status["ended_because"] else ""
    goals = ", ".join(f"{goal.direction} {goal.metric}" for goal in results.goals)
    facts = [
        f"{status['state']}{because}: {counts or 'no trial'}",
        f"{goals} of the validation rows",
        f"backbone {study.backbone.model}, {results.backbone_parameters:,} parameters, frozen",
        f"{study.sampler.name}, {study.pruner.name}, seed {study.seed}",
        f"{duration(3600 * results.hours)}, {duration(3600 * results.device_hours)} of devices",
    ]
    links = "".join(f'<a href="#{name}">{name}</a>' for name in figures.FIGURES)
    return f'<p class="about">{html.escape(" · ".join(facts))}</p><nav class="about">{links}</nav>'


def _finalists(results: Results) -> str:
    """What was confirmed, in numbers and in words."""
    said = results.confirmed
    if said is None:
        return ""
    columns, rows = confirmed.table_of(said)
    winner = said["winner"]["name"]
    lines = [_line(map(cell, row), row[0] == winner) for row in rows]
    words = [confirmed.explanation(said), *confirmed.conclusions(said)]
    paragraphs = "".join(f"<p>{html.escape(line)}</p>" for line in words)
    return f'<div class="wide below">{table(columns, lines)}</div><div class="below">{paragraphs}</div>'


def _table(results: Results) -> str:
    columns, rows = trial_rows(results)
    best = results.best
    lines = [_row(trial, row, best) for trial, row in zip(results.begun, rows, strict=True)]
    return table(columns, lines)


def _row(trial: TrialView, cells: Sequence[Any], best: TrialView | None) -> str:
    return _line(map(cell, cells), best is not None and trial.place_id == best.place_id)


def _line(cells: Iterable[str], is_best: bool) -> str:
    kind = ' class="best"' if is_best else ""
    return f"<tr{kind}>{''.join(cells)}</tr>"


def table(columns: Sequence[str], lines: Iterable[str]) -> str:
    """An HTML table; the lines are its rows, as HTML."""
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def cell(value: Any) -> str:
    """A cell of a table: numbers, and what shows one, to the right, sorted by their value."""
    if isinstance(value, Shown):
        return f'<td class="number" data-value="{value.value!r}">{html.escape(value)}</td>'
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f'<td class="number" data-value="{value!r}">{html.escape(number(value))}</td>'
    return f"<td>{html.escape('' if value is None else str(value))}</td>"
