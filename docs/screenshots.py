"""Makes the pictures of docs/ from a study that was run: its report's front, and its charts in MLflow.

    SWEEPER_HOME=… python docs/screenshots.py STUDY http://127.0.0.1:5000

The second argument is where ``sweeper ui`` serves. It needs Playwright and a Chromium.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from sweeper.loaded import load
from sweeper.lookup import open_ledger
from sweeper.tracking import charts

DOCS = Path(__file__).parent


def main(study: str, server: str) -> None:
    from playwright.sync_api import sync_playwright

    experiment_id = open_ledger().study(study).experiment_id
    assert experiment_id is not None, f"{study} is not drawn in MLflow yet: `sweeper sync {study}`"
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
        for name in ("front", "parallel"):
            page.locator(f"#{name}").screenshot(path=DOCS / f"report-{name}.png")
        page = browser.new_page(viewport={"width": 1480, "height": 1240})
        page.goto(charts.link(server, experiment_id))
        page.locator(".parcoords .dimension .label").first.wait_for(timeout=120_000)
        for name in ("Close", "close"):
            for button in page.get_by_role("button", name=name, exact=True).all():
                button.click(timeout=2000)
        page.wait_for_timeout(4000)
        page.screenshot(path=DOCS / "mlflow-charts.png")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
