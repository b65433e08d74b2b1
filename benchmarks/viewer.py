"""The list of `qprd view` with N slides, as a person waits for it, in a Chromium.

    python benchmarks/viewer.py [--entries 5000] [--markdown FILE]

All slides have results. They are small, as their pixels play no part in the list.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from playwright.sync_api import sync_playwright
from starlette.applications import Starlette

from harness.command import run_command
from harness.options import command_line
from harness.tables import markdown_table, publish
from qprd.qupath.exchange import ExchangeProject
from qprd.view.content import Content
from qprd.view.server import make_app
from scale import make_project

_TOKEN = "token"  # noqa: S105
_SORTED_AND_SEARCHED = """async () => {
  const started = performance.now();
  for (const [id, value] of [["sort", "score"], ["search", "slide_49"]]) {
    const node = document.getElementById(id);
    node.value = value;
    node.dispatchEvent(new Event("input"));
  }
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  return (performance.now() - started) / 1000;
}"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entries", type=int, default=5000, metavar="N")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="qprd-viewer-") as temporary:
        folder = make_project(Path(temporary, "project"), arguments.entries)
        with ExchangeProject(folder / "project.qpproj") as project:
            content = Content(project)
            rows = list(_measure(content, make_app(content, _TOKEN)))
    table = markdown_table(("what", "time"), [(what, f"{took:.2f} s") for what, took in rows])
    described = f"{table}\n{arguments.entries:,} slides\n\n```sh\n{command_line()}\n```\n"
    publish(described, arguments.markdown)


def _measure(content: Content, app: Starlette) -> Iterator[tuple[str, float]]:
    for what in ("the list is read for the first time", "it is read again"):
        started = time.perf_counter()
        content.project()
        yield what, time.perf_counter() - started
    program = shutil.which("chromium") or shutil.which("chrome")
    with _served(app) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        started = time.perf_counter()
        page.goto(f"{address}/?token={_TOKEN}")
        page.wait_for_selector("#slides li")
        yield "the page with the list is opened", time.perf_counter() - started
        yield "it is sorted and searched", float(page.evaluate(_SORTED_AND_SEARCHED))
        started = time.perf_counter()
        page.click("#slides li:visible button >> nth=0")
        page.wait_for_selector("#now .scale", state="visible")
        yield "a slide is opened", time.perf_counter() - started
        browser.close()


@contextmanager
def _served(app: Starlette) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


if __name__ == "__main__":
    run_command(main)
