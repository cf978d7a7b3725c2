"""The commands that look at whole studies. ``cli`` adds them to its own; they hold no logic."""

from __future__ import annotations

from pathlib import Path

import typer

from sweeper.arguments import Json, PageFile, ReportFile, StudyName, StudyNames, example
from sweeper.console import Output


def report(study: StudyName, out: ReportFile = None, json: Json = False) -> None:
    """Write a study's report: one HTML page with every figure and the table, that needs no network.

    The Pareto front with its references, parallel coordinates, importance, slices, learning curves, which
    worker trained what when, and the finalists.
    """
    from sweeper.loaded import load
    from sweeper.results import headline

    output, loaded = Output(json), load(study)
    file = loaded.report(out if out is not None else Path(f"{loaded.name}-report.html"))
    output.note(headline(loaded.results))
    if json:
        output.document({"study": loaded.name, "file": str(file), "figures": list(loaded.figures)})
    else:
        output.data(str(file))


def compare(studies: StudyNames, out: PageFile = None, json: Json = False) -> None:
    """Compare studies with the same objective: their best, their fronts, what they cost, how they differ."""
    from sweeper.compare import compare_studies, comparison_page, print_comparison
    from sweeper.loaded import load
    from sweeper.page import write_page

    output = Output(json)
    results = [load(name).results for name in studies]
    comparison = compare_studies(results)
    if out is not None:
        write_page(out, comparison_page(results, comparison))
        output.note(f"written: {out}")
    output.document(comparison) if json else print_comparison(output, comparison)


def add_reading(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command, examples in (
        (report, ("sweeper report sst2", "sweeper report sst2 --out reports/sst2.html")),
        (compare, ("sweeper compare sst2 sst2-random", "sweeper compare a b c --out comparison.html --json")),
    ):
        app.command(epilog=example(*examples))(command)
