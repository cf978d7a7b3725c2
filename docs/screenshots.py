"""Makes the pictures of docs/ from a study that was run and confirmed: its report, and its pages in MLflow.

    SWEEPER_HOME=… python docs/screenshots.py STUDY http://127.0.0.1:5000

The second argument is where ``sweeper ui`` serves. It needs Playwright and a Chromium.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.loaded import load
from sweeper.lookup import open_ledger
from sweeper.tracking import charts, views

if TYPE_CHECKING:
    from playwright.sync_api import Browser

DOCS = Path(__file__).parent


def main(study: str, server: str) -> None:
    from playwright.sync_api import sync_playwright

    experiment = open_ledger().study(study).experiment_id
    assert experiment is not None, f"{study} is not drawn in MLflow yet: `sweeper sync {study}`"
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        report = load(study).report(Path(folder) / "report.html")
        browser = playwright.chromium.launch(
            executable_path=next(filter(None, map(shutil.which, ("chromium", "google-chrome")))),
            args=["--no-sandbox", "--disable-dev-shm-usage", "--enable-unsafe-swiftshader"],
        )
        page = browser.new_page(viewport={"width": 1000, "height": 900})
        page.goto(report.as_uri())
        page.locator("body[data-drawn=yes]").wait_for(timeout=120_000)
        page.wait_for_timeout(1500)
        for name in ("front", "parallel", "finalists"):
            page.locator(f"#{name}").screenshot(path=DOCS / f"report-{name}.png")
        table, finalists = (
            views.link(server, experiment),
            charts.link(server, experiment, charts.FINALISTS_KEY),
        )
        _take(browser, table, "text=trial-0000", "finished-study", 1900, 800)
        drawn = ".parcoords .dimension .label"
        _take(browser, charts.link(server, experiment), drawn, "mlflow-charts", 1480, 1240)
        _take(browser, finalists, ".scatterlayer .point", "mlflow-finalists", 1480, 800)
        browser.close()


def _take(browser: Browser, address: str, drawn: str, name: str, width: int, height: int) -> None:
    """A picture of a page of MLflow, once something in it is drawn; what can be closed on it is closed."""
    page = browser.new_page(viewport={"width": width, "height": height})
    page.goto(address)
    page.locator(drawn).first.wait_for(timeout=120_000)
    for label in ("Close", "close"):
        for button in page.get_by_role("button", name=label, exact=True).all():
            button.click(timeout=30_000)
    page.wait_for_timeout(4000)
    page.screenshot(path=DOCS / f"{name}.png")
    page.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
