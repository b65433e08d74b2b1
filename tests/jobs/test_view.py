"""``qprd view`` as a user starts and stops it."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

import qprd
from qprd.errors import QprdError
from tests.helpers.drawn_project import environment


def show(project: Path, port: int = 0) -> None:
    with qprd.open_project(project, backend="exchange") as opened:
        qprd.view_results(opened, port=port, announce=lambda _: None)


def test_it_serves_at_the_address_that_it_prints_until_it_is_interrupted(project: Path) -> None:
    command = [sys.executable, "-m", "qprd", "view", project, "--backend", "exchange"]
    running = subprocess.Popen(
        [*map(str, command), "--port", "0"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert running.stdout is not None
        found = re.search(
            r"Open (http://127\.0\.0\.1:\d+)/\?token=(\S+)", running.stdout.readline()
        )
        assert found is not None
        address, token = found.groups()
        assert len(token) >= 32
        with httpx.Client(base_url=address, follow_redirects=True, trust_env=False) as browser:
            assert browser.get("/project").status_code == 403
            assert "<title>qprd</title>" in browser.get("/", params={"token": token}).text
            assert [row["name"] for row in browser.get("/project").json()["slides"]]
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=20)
    finally:
        running.kill()
    assert running.returncode == 0
    assert "Traceback" not in errors


def test_a_port_that_is_taken_is_told(project: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(QprdError, match="port") as refused:
            show(project, taken.getsockname()[1])
    assert refused.value.where == "--port"


@pytest.mark.parametrize("module", ["uvicorn", "starlette.applications"])
def test_a_missing_extra_is_told(
    project: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "qprd.view.server", raising=False)
    with pytest.raises(QprdError, match="not installed") as refused:
        show(project)
    assert refused.value.fix == 'pip install "qprd[view]"'
