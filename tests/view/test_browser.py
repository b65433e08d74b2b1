"""The page in a real browser: by mouse, by keyboard alone, in light and dark."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn

from qprd.qupath.exchange import ExchangeProject
from qprd.view.content import Content
from qprd.view.server import make_app
from tests.helpers.drawn_project import edit
from tests.view.conftest import TOKEN, evaluate_with_mistakes

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

MARKUP = '<img src=x onerror="document.title=1">&amp;\u202e.tif'

#: Opens the page of a project and waits for the list.
Show = Callable[..., "Page"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    program = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None
    )
    if program is None:
        pytest.skip("no Chromium is found")
    # Chromium's sandbox refuses to be run by root.
    arguments = ["--no-sandbox"] if getattr(os, "geteuid", lambda: 1)() == 0 else []
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=arguments)
        yield started
        started.close()


@contextmanager
def served(project: Path) -> Iterator[str]:
    """The address of the viewer of a project, token included."""
    with ExchangeProject(project) as opened:
        content = Content(opened)
        app = make_app(content, TOKEN, reviewer="Ana")
        config = uvicorn.Config(app, port=0, log_level="error", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            yield f"http://127.0.0.1:{port}/?token={TOKEN}"
        finally:
            server.should_exit = server.force_exit = True
            thread.join()
            content.close()


@pytest.fixture
def show(browser: Browser, predicted: Path) -> Iterator[Show]:
    """Opens the page; whatever it complains of fails the test."""
    complaints: list[str] = []
    with served(predicted) as address:
        context = None

        def opened(scheme: str = "light", path: str = "", prepare: Any = None) -> Page:
            nonlocal context
            context = browser.new_context(viewport={"width": 1280, "height": 800})
            page = context.new_page()
            colors: dict[str, Any] = {"color_scheme": scheme}
            page.emulate_media(**colors)
            page.on("console", lambda message: complaints.append(message.text))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("request", lambda request: _refuse_elsewhere(request.url, complaints))
            if prepare is not None:
                prepare(page)
            page.goto(address + path)
            page.wait_for_selector("#slides li")
            return page

        yield opened
        assert context is not None
        context.close()
    assert complaints == []


def _refuse_elsewhere(url: str, complaints: list[str]) -> None:
    if not url.startswith(("http://127.0.0.1:", "data:", "blob:")):
        complaints.append(f"a request to {url}")


def reviews(project: Path) -> list[dict[str, Any]]:
    file = project.parent / "qprd" / "reviews" / "1.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def wait(condition: Callable[[], bool], page: Page) -> None:
    for _ in range(200):
        if condition():
            return
        page.wait_for_timeout(50)
    raise AssertionError("it never happened")


def pixels(page: Page, layer: str) -> str:
    """What a canvas of the stage shows."""
    drawn = page.evaluate(f"document.querySelector({layer!r}).toDataURL()")
    assert isinstance(drawn, str)
    return drawn


SLIDE, OVERLAY = "#now .openseadragon-canvas canvas:not(.overlay)", "#now .overlay"
SCALE, LENGTH = "#now .scale", "#now .length"


def open_first(page: Page) -> None:
    page.click("#slides li:first-child button")
    page.wait_for_selector(SCALE, state="visible")
    page.wait_for_load_state("networkidle")


def test_a_slide_is_moved_and_zoomed_by_mouse(show: Show) -> None:
    page = show()
    open_first(page)
    assert page.inner_text("#name") == "first.tif"
    length, before = page.inner_text(LENGTH), pixels(page, SLIDE)
    assert re.fullmatch(r"\d+ µm", length)
    page.click("[aria-label='Zoom in']")
    wait(lambda: page.inner_text(LENGTH) != length, page)
    wait(lambda: pixels(page, SLIDE) != before, page)
    page.wait_for_timeout(600)
    before, drawn = pixels(page, SLIDE), pixels(page, OVERLAY)
    page.mouse.move(640, 400)
    page.mouse.down()
    page.mouse.move(560, 330, steps=4)
    page.mouse.up()
    wait(lambda: pixels(page, SLIDE) != before and pixels(page, OVERLAY) != drawn, page)


def test_the_threshold_moves_the_contours_and_goes_back(show: Show, predicted: Path) -> None:
    page = show()
    open_first(page)
    page.uncheck("#heatmap")
    page.wait_for_timeout(500)
    as_predicted, told = pixels(page, OVERLAY), page.inner_text("#above")
    with page.expect_response("**/contours?*probability=*") as answer:
        page.fill("#threshold", page.get_attribute("#threshold", "max") or "1")
    assert len(answer.value.json()["contours"]) <= 1
    wait(lambda: page.inner_text("#above") != told, page)
    assert pixels(page, OVERLAY) != as_predicted
    page.click("#reset")
    assert (pixels(page, OVERLAY), page.inner_text("#above")) == (as_predicted, told)
    assert not (predicted.parent / "qprd" / "reviews").exists()


def test_all_is_done_by_keyboard_alone(show: Show, predicted: Path) -> None:
    page = show()
    page.keyboard.press("/")
    page.keyboard.type("first")
    assert page.locator("#slides li:visible").count() == 1
    for _ in range(4):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('#slides') !== null"):
            break
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert outline == "3px"
    page.keyboard.press("Enter")
    page.wait_for_selector(SCALE, state="visible")
    page.keyboard.press("v")
    length, before = page.inner_text(LENGTH), pixels(page, SLIDE)
    page.keyboard.press("+")
    wait(lambda: page.inner_text(LENGTH) != length, page)
    page.keyboard.press("ArrowLeft")
    wait(lambda: pixels(page, SLIDE) != before, page)
    page.keyboard.press("n")
    wait(lambda: page.inner_text("#region").startswith("1. "), page)
    page.keyboard.press("t")
    page.keyboard.type("narrow")
    page.keyboard.press("Enter")
    wait(lambda: len(reviews(predicted)) == 1, page)
    page.wait_for_selector("#review[aria-busy=false]")
    page.keyboard.press("a")
    wait(lambda: page.inner_text("#region").startswith("2. "), page)
    page.keyboard.press("p")
    wait(lambda: "accepted" in page.inner_text("#region"), page)
    page.keyboard.press("r")
    wait(lambda: page.inner_text("#region").startswith("2. "), page)
    page.keyboard.press("p")
    wait(lambda: "rejected" in page.inner_text("#region"), page)
    page.keyboard.press("u")
    wait(lambda: len(reviews(predicted)) == 4, page)
    lines = reviews(predicted)
    assert [line["verdict"] for line in lines] == ["none", "accepted", "rejected", "none"]
    assert {(line["name"], line["note"]) for line in lines} == {("Ana", "narrow")}
    assert len({line["feature"]["id"] for line in lines}) == 1


def test_letters_can_be_switched_off(show: Show, predicted: Path) -> None:
    page = show()
    open_first(page)
    page.click("summary:has-text('Keys')")
    page.keyboard.press("n")
    page.uncheck("#keys")
    page.keyboard.press("a")
    page.wait_for_timeout(300)
    assert reviews(predicted) == []


def test_a_link_leads_to_a_place(show: Show) -> None:
    page = show(path="#slide=2&x=400&y=300")
    wait(lambda: page.inner_text("#name") == "second.tif", page)
    wait(lambda: page.inner_text(LENGTH) in ("50 µm", "20 µm"), page)


def test_two_bundles_are_seen_side_by_side(browser: Browser, predicted_twice: Path) -> None:
    before = "#before .openseadragon-canvas canvas:not(.overlay)", "#before .overlay"
    with served(predicted_twice) as address:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(address)
        open_first(page)
        assert not page.is_visible("#before")
        page.keyboard.press("b")
        wait(lambda: "mm²" in page.inner_text("#before .caption"), page)
        page.wait_for_timeout(800)
        assert pixels(page, OVERLAY) != pixels(page, before[1])
        assert pixels(page, SLIDE) == pixels(page, before[0])
        for pane in ("#before", "#now"):
            seen = pixels(page, SLIDE)
            page.hover(pane)
            page.mouse.wheel(0, -200)
            page.wait_for_timeout(1500)
            assert pixels(page, SLIDE) != seen
            assert pixels(page, SLIDE) == pixels(page, before[0])
        told, drawn = page.inner_text("#before .caption"), pixels(page, before[1])
        page.fill("#threshold", "0.1")
        wait(lambda: page.inner_text("#before .caption") != told, page)
        assert pixels(page, before[1]) != drawn
        page.click("#reset")
        wait(lambda: page.inner_text("#before .caption") == told, page)
        wait(lambda: pixels(page, before[1]) == drawn, page)
        page.click("#slides li:nth-child(2) button")
        wait(lambda: page.inner_text("#name") == "second.tif", page)
        assert not page.is_visible("#before")
        assert not page.is_visible("#compare")
        page.click("#slides li:first-child button")
        wait(lambda: page.is_visible("#before .scale"), page)
        page.close()


def test_pages_of_the_results_lead_into_the_viewer(show: Show, predicted: Path) -> None:
    evaluate_with_mistakes(predicted)
    page = show()
    page.click("#pages a:has-text('Evaluation')")
    page.click("figure a:has-text('Go there') >> nth=0")
    page.wait_for_selector(SCALE, state="visible")
    wait(lambda: page.inner_text(LENGTH) in ("50 µm", "20 µm"), page)
    page.click("#pages a:has-text('All results')")
    page.click("thead button:has-text('Slide') >> nth=0")
    assert page.get_attribute("thead th >> nth=0", "aria-sort") == "ascending"
    assert page.evaluate("[...document.images].every((one) => one.naturalWidth > 0)")
    page.click("text=Zoom into this slide >> nth=1")
    wait(lambda: page.inner_text("#name") == "second.tif", page)


def test_the_same_pages_as_files_say_how_to_go_on(browser: Browser, predicted: Path) -> None:
    evaluate_with_mistakes(predicted)
    page = browser.new_page()
    for name in ("index.html", "evaluation.html"):
        page.goto((predicted.parent / "qprd" / "results" / name).as_uri())
        assert page.locator(".served").count() > 1
        assert not any(one.is_visible() for one in page.locator(".served").all())
        assert "qprd view" in page.inner_text("body")
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_names_are_text_and_can_be_read(show: Show, predicted: Path, scheme: str) -> None:
    page = show(scheme)
    open_first(page)
    ratios = page.evaluate(
        """() => {
          const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
          const light = (color) => numbers(color).slice(0, 3).map((v) => v / 255)
            .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
            .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
          const behind = (node) => {
            for (let at = node; at; at = at.parentElement) {
              const color = getComputedStyle(at).backgroundColor;
              if ((numbers(color)[3] ?? 1) > 0) return color;
            }
          };
          return [...document.querySelectorAll("p, dt, dd, label, legend, button, kbd, h1, h2")]
            .filter((node) => node.checkVisibility() && node.textContent.trim() && !node.disabled
              && !node.closest("#stage, :disabled"))
            .map((node) => {
              const pair = [getComputedStyle(node).color, behind(node)].map(light);
              return [(Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05), node.textContent];
            });
        }"""
    )
    assert len(ratios) > 30
    assert [text for ratio, text in ratios if ratio < 4.5] == []
    nameless = page.evaluate(
        """[...document.querySelectorAll("button, input, select, a, canvas:not([aria-hidden])")]
          .filter((node) => !node.closest(".openseadragon-container, [aria-hidden]"))
          .filter((node) => !(node.ariaLabel || node.textContent.trim() || node.labels?.length))
          .map((node) => node.outerHTML)"""
    )
    assert nameless == []


def test_markup_in_names_is_shown_as_it_is(browser: Browser, predicted: Path) -> None:
    def rename(root: Any) -> None:
        root["images"][0]["imageName"] = MARKUP

    edit(predicted, rename)
    with served(predicted) as address:
        page = browser.new_page()
        page.goto(address)
        open_first(page)
        assert page.inner_text("#name") == MARKUP
        assert page.inner_text("#slides li:first-child .title") == MARKUP
        assert page.title() == MARKUP
        assert page.locator("#slides img, #panel img").count() == 3
        page.close()


def test_thousands_of_slides_stay_fast(show: Show) -> None:
    asked: list[str] = []

    def prepare(page: Page) -> None:
        rows = [
            {"id": "1", "name": f"slide {i}.svs", "score": i % 97 / 97, "tumorMm2": 1.0 * (i % 13)}
            for i in range(5000)
        ]
        many = {"name": "many", "reviewer": "", "mistakes": {}, "slides": rows}
        page.route("**/project", lambda route: route.fulfill(json=many))
        page.on("request", lambda request: asked.append(request.url))

    started = time.perf_counter()
    page = show(prepare=prepare)
    assert page.inner_text("#count") == "5000 slides"
    assert time.perf_counter() - started < 20
    page.wait_for_timeout(300)
    seconds = page.evaluate(
        """async () => {
          const started = performance.now();
          const type = (id, value) => {
            const node = document.getElementById(id);
            node.value = value;
            node.dispatchEvent(new Event("input"));
          };
          type("sort", "score");
          type("search", "slide 49");
          await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
          return (performance.now() - started) / 1000;
        }"""
    )
    assert seconds < 5
    found = [(i % 97, i) for i in range(5000) if "49" in str(i)]
    assert page.inner_text("#count") == f"{len(found)} of 5000 slides"
    first = page.locator("#slides li:visible .title").first
    assert first.inner_text() == f"slide {min(found)[1]}.svs"
    assert sum("thumbnail" in url for url in asked) < 200
