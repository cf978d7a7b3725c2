"""What a person sees who opens the printed link: a real server, a real browser.

It needs a Chromium. Where there is none it is skipped, except where ``CI`` is set: there it fails.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from sweeper.tracking.views import SIZES
from tests.command_line import CommandLine
from tests.made_study import BEST, TRIALS, MadeStudy, home_in

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = "no Chromium was found: install one, such as Debian's package chromium"


@pytest.fixture(scope="module")
def link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What ``sweeper ui`` printed."""
    if CHROMIUM is None and not os.environ.get("CI"):
        pytest.skip(MISSING)
    assert CHROMIUM is not None, MISSING
    folder = tmp_path_factory.mktemp("browser")
    study = MadeStudy(home_in(folder / "sweeps"))
    study.run_all()
    study.ledger.close()
    process: subprocess.Popen[str] = CommandLine(folder).start("ui", "films", "--port", "0")
    try:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        assert line.startswith("films: http://"), process.stderr.read()
        yield line.removeprefix("films: ").strip()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def test_the_link_shows_at_once_which_adapter_won_by_how_much_and_at_what_size(link: str) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        # So wide that every column is on the page, also beside the panel that opens at the first visit.
        page = browser.new_page(viewport={"width": 2600, "height": 1000})
        page.goto(link)
        page.get_by_role("link", name="trial-0005").wait_for(timeout=60_000)
        text = page.locator("body").inner_text()
        assert "Best: trial-0001 · accuracy 0.8643 · 450,746 parameters (1.98 %) · default 0.8135" in text
        columns = {text: left for text, left, _ in _at(page, "[role=columnheader]")}
        wanted = ["sweeper.state", "objective", *SIZES, *TRIALS[0].params]
        assert sorted(set(wanted) & set(columns), key=columns.__getitem__) == wanted
        tops = {text: top for text, _, top in _at(page, "a") if text.startswith(("trial-", "reference-"))}
        assert len(tops) == len(TRIALS) + 1
        in_order = ["trial-0002", "trial-0001", "trial-0005", "trial-0000", "trial-0004", "reference-head"]
        assert sorted(tops, key=tops.__getitem__) == [*in_order, "trial-0003"]
        best = TRIALS[BEST]
        row = [text for text, _, top in _at(page, "[role=gridcell]") if abs(top - tops["trial-0001"]) < 15]
        for value in ("best", str(best.curve[-1]), "450746", "449976", *map(str, best.params.values())):
            assert value in row, f"{value} is not among {row}"
        browser.close()


def _at(page: Page, selector: str) -> list[tuple[str, float, float]]:
    """The text of the elements and where they are on the page: from the left, from the top."""
    script = """elements => elements.map(element => {
        const box = element.getBoundingClientRect()
        return [element.innerText.trim(), box.x, box.y]
    })"""
    return [tuple(found) for found in page.locator(selector).evaluate_all(script)]
