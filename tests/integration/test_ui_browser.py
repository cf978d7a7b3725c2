"""What a person sees who opens the printed link: a real server, a real browser.

It needs a Chromium. Where there is none it is skipped, except where ``CI`` is set: there it fails.
"""

from __future__ import annotations

import os
import shutil
import signal
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
def links(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What ``sweeper ui`` printed: the address of each page, by what is before it."""
    if CHROMIUM is None and not os.environ.get("CI"):
        pytest.skip(MISSING)
    assert CHROMIUM is not None, MISSING
    folder = tmp_path_factory.mktemp("browser")
    study = MadeStudy(home_in(folder / "sweeps"))
    study.run_all()
    study.confirm(finalists=2, seeds=3)
    study.ledger.close()
    process = CommandLine(folder).forked("ui", "films", "--port", "0")
    try:
        lines = [process.stdout.readline() for _ in range(4)]
        assert lines[0].startswith("films: http://"), process.stderr.read()
        found = dict(line.strip().split(": ", 1) for line in lines)
        pages = ["films", "films, charts", "films, the best 3 compared", "films, the finalists"]
        assert list(found) == pages
        yield found
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(60)


@pytest.fixture(scope="module")
def browser_page(links: dict[str, str]) -> Iterator[Page]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--enable-unsafe-swiftshader"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        # So wide that every column is on the page, also beside the panel that opens at the first visit.
        yield browser.new_page(viewport={"width": 2600, "height": 1300})
        browser.close()


@pytest.fixture
def page(browser_page: Page) -> Page:
    browser_page.goto("about:blank")  # an address that differs behind its # alone would not be loaded
    return browser_page


def test_the_link_shows_at_once_which_adapter_won_by_how_much_and_at_what_size(
    page: Page, links: dict[str, str]
) -> None:
    page.goto(links["films"])
    page.get_by_role("link", name="trial-0005", exact=True).wait_for(timeout=60_000)
    text = page.locator("body").inner_text()
    first = "Confirmed: trial-0001 · test accuracy 0.8488 (± 0.0039, 3 seeds) · 4,770 parameters (0.021 %)"
    assert first in text
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


def test_the_charts_show_size_against_objective_the_curves_and_the_searched_parameters(
    page: Page, links: dict[str, str]
) -> None:
    page.goto(links["films, charts"])
    page.get_by_text("Parallel Coordinates").first.wait_for(timeout=60_000)
    page.locator(".scatterlayer .point").first.wait_for(timeout=60_000)
    text = "".join(page.locator("body").inner_text().split())
    for wanted in ("Adapters(2)", "Searchedparameters(1)", "Adapters,charts"):
        assert wanted in text, text
    axes = (
        page.locator(".xtitle, .ytitle").all_inner_texts()
        + page.locator(".xtitle, .ytitle").all_text_contents()
    )
    assert {"trainable_parameters", "objective", "Step"} <= set(axes)
    page.locator(".parcoords .dimension .label").first.wait_for(timeout=60_000)
    drawn = [title.strip() for title in page.locator(".parcoords .dimension .label").all_text_contents()]
    assert set(TRIALS[0].params) | {"objective"} <= set(drawn)


def test_the_best_are_compared_on_one_page(page: Page, links: dict[str, str]) -> None:
    page.goto(links["films, the best 3 compared"])
    page.get_by_text("Comparing 3 Runs from 1 Experiment").wait_for(timeout=60_000)
    text = page.locator("body").inner_text()
    assert all(name in text for name in ("trial-0001", "trial-0005", "trial-0000"))


def test_the_finalists_stand_beside_their_references_with_means_over_the_seeds(
    page: Page, links: dict[str, str]
) -> None:
    page.goto(links["films, the finalists"])
    page.locator(".barlayer .point, .bars .point").first.wait_for(timeout=60_000)
    page.locator(".scatterlayer .point").first.wait_for(timeout=60_000)
    text = " ".join(page.locator("body").inner_text().split())
    for wanted in ("Finalists and references (3)", "trainable_parameters vs. test/accuracy_mean"):
        assert wanted in text, text
    for name in ("trial-0001", "trial-0005", "head alone", "full fine-tuning"):
        assert f"confirmed {name}" in text, text
    # What was trained for them, and the search, are in other views.
    assert "confirm-0001-1" not in text and "trial-0002" not in text


def test_the_report_opens_among_the_artifacts_and_asks_no_other_server(
    page: Page, links: dict[str, str]
) -> None:
    page.goto(links["films"])
    page.get_by_role("link", name="report", exact=True).first.wait_for(state="attached", timeout=60_000)
    address = page.get_by_role("link", name="report", exact=True).first.get_attribute("href")
    assert address is not None and address.startswith("#/experiments/")
    server = links["films"].partition("#")[0]
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto("about:blank")
    page.goto(server + address)
    report = page.frame_locator("iframe")
    report.locator("body[data-drawn=yes]").wait_for(timeout=60_000)
    assert "trial-0001 reaches accuracy 0.864258" in report.locator("h1").inner_text()
    assert report.locator("section .main-svg").count() >= 7
    outside = [url for url in asked if not url.startswith((server, "blob:", "data:", "about:"))]
    assert not [url for url in outside if "plot" in url or url.endswith(".js")], outside


def _at(page: Page, selector: str) -> list[tuple[str, float, float]]:
    """The text of the elements and where they are on the page: from the left, from the top."""
    script = """elements => elements.map(element => {
        const box = element.getBoundingClientRect()
        return [element.innerText.trim(), box.x, box.y]
    })"""
    return [tuple(found) for found in page.locator(selector).evaluate_all(script)]
