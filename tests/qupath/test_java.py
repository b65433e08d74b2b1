"""Finding and starting QuPath."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qprd.errors import QprdError
from qprd.qupath.java import QuPath, QuPathInstallation, qupath_call

_ROOT = Path(__file__).parents[2]


def run(script: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(_ROOT), **environment},
    )


def test_without_a_qupath_the_error_names_both_ways_out(tmp_path: Path) -> None:
    script = (
        "from qprd.errors import QprdError\n"
        "from qprd.qupath.java import find_qupath, start_qupath\n"
        "assert find_qupath() is None\n"
        "try:\n"
        "    start_qupath()\n"
        "except QprdError as error:\n"
        "    print(error)\n"
    )
    done = run(script, tmp_path, PAQUO_QUPATH_DIR=str(tmp_path))
    assert f"PAQUO_QUPATH_DIR names ({tmp_path})" in done.stdout
    assert "paquo get_qupath --install-path DIR 0.6.0" in done.stdout, done.stderr
    assert "--backend exchange" in done.stdout


def test_without_paquo_no_qupath_is_found(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "sys.modules['paquo'] = None\n"
        "from qprd.qupath.java import find_qupath\n"
        "print(find_qupath())\n"
    )
    done = run(script, tmp_path)
    assert done.stdout == "None\n", done.stderr


@pytest.mark.parametrize(
    ("version", "usable"),
    [
        ("0.4.4", False),
        ("0.5.1", False),
        ("0.6.0", True),
        ("0.6.0-rc5", True),
        ("0.7.0", True),
        ("0.10.0", True),
        ("unknown", True),
    ],
)
def test_old_versions_are_told_apart(version: str, usable: bool) -> None:
    assert (QuPathInstallation(Path(), version).problem is None) is usable


@pytest.mark.qupath
@pytest.mark.usefixtures("qupath")
def test_finding_qupath_starts_no_java(tmp_path: Path) -> None:
    script = (
        "import jpype\n"
        "from qprd.qupath.java import find_qupath\n"
        "print(find_qupath().version, jpype.isJVMStarted())\n"
    )
    done = run(script, tmp_path)
    assert done.stdout.split() == [done.stdout.split()[0], "False"]
    assert done.stdout[0].isdigit()


@pytest.mark.qupath
@pytest.mark.usefixtures("qupath")
def test_a_started_qupath_leaves_control_c_to_python_and_says_nothing(tmp_path: Path) -> None:
    script = (
        "import os, signal, time\n"
        "from qprd.qupath.java import start_qupath\n"
        "start_qupath()\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(5)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    done = run(script, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")


@pytest.mark.qupath
def test_java_exceptions_become_errors(qupath: QuPath, tmp_path: Path) -> None:
    with (
        pytest.raises(QprdError, match=r"Cannot read: .*No such file") as raised,
        qupath_call("Cannot read", tmp_path),
    ):
        qupath.data_file.read(str(tmp_path / "none"))
    assert raised.value.where == str(tmp_path)
