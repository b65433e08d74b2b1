from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import qprd
from qprd.cli import app
from qprd.errors import ExitCode, QprdError
from qprd.qupath import opening

ROOT = typer.main.get_command(app)
COMMANDS = sorted(ROOT.commands)  # type: ignore[attr-defined]


def run(*words: object) -> tuple[int, str]:
    """Exit code, and everything that was printed."""
    outcome = CliRunner().invoke(app, [str(word) for word in words])
    if outcome.exception is not None and not isinstance(outcome.exception, SystemExit):
        raise outcome.exception
    return outcome.exit_code, outcome.output


def child(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    search = os.pathsep.join(
        filter(None, (str(Path(qprd.__file__).parents[1]), os.environ.get("PYTHONPATH")))
    )
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": search, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def options(command: str) -> dict[str, Any]:
    return {
        name: parameter
        for parameter in ROOT.commands[command].params  # type: ignore[attr-defined]
        for name in parameter.opts
        if name.startswith("--")
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example_that_parses(command: str) -> None:
    code, printed = run(command, "--help")
    assert code == 0
    plain = re.sub(r"\x1b\[[0-9;]*m", "", printed)
    (example,) = re.findall(r"Example: (qprd .*)", plain)
    words = example.split()[1:]
    assert words[0] == command
    known = ROOT.commands[command]  # type: ignore[attr-defined]
    known.make_context(command, words[1:], resilient_parsing=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained(command: str) -> None:
    """That no option is lost is seen in docs/reference.md, which another test compares."""
    for name, option in options(command).items():
        assert option.help, name


@pytest.mark.parametrize("command", sorted({*COMMANDS} - {"demo", "export", "groovy", "teachers"}))
def test_commands_on_a_project_find_it_alike(command: str) -> None:
    missing = {"--backend", "--slides", "--annotations", "--events"} - set(options(command))
    # Its annotations are the file that it imports.
    assert missing == ({"--annotations"} if command == "import-asap" else set())


def test_options_that_commands_share_are_the_same() -> None:
    seen: dict[str, tuple[object, ...]] = {}
    for command in COMMANDS:
        for name, option in options(command).items():
            if name == "--seed":
                continue  # the demo draws slides with it
            if command == "import-asap" and name in ("--image", "--tumor-class"):
                continue  # one image, and the one class it gets
            if name == "--min-tissue":
                continue  # of a training patch, and of a tile
            help_text = str(option.help).partition(" Default:")[0]
            described = (option.metavar, help_text, option.multiple)
            assert seen.setdefault(name, described) == described, (command, name)


@pytest.mark.parametrize("command", ["train", "predict", "write-back", "doctor", "demo"])
def test_a_backend_that_does_not_exist_is_answered_with_those_that_do(command: str) -> None:
    code, printed = run(command, "x", "--backend", "imagej")
    assert code == ExitCode.USAGE
    assert all(word in printed for word in ("auto", "paquo", "exchange"))


def test_the_versions_are_printed_without_loading_torch_or_java() -> None:
    code = (
        "import sys, jpype\n"
        "from typer.testing import CliRunner\n"
        "from qprd.cli import app\n"
        "print(CliRunner().invoke(app, ['--version']).output, end='')\n"
        "print('torch' in sys.modules, jpype.isJVMStarted())\n"
    )
    done = child("-c", code)
    assert done.returncode == 0, done.stderr
    *lines, loaded = done.stdout.splitlines()
    assert lines[0] == f"qprd {qprd.__version__}"
    assert [line.split()[0] for line in lines] == [
        "qprd",
        "Python",
        "PyTorch",
        "OpenSlide",
        "QuPath",
    ]
    assert f"PyTorch {importlib.metadata.version('torch')}" in lines
    assert loaded == "False False"


def test_help_is_quick_it_loads_neither_torch_nor_java() -> None:
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from qprd.cli import app\n"
        "result = CliRunner().invoke(app, ['train', '--help'])\n"
        "assert result.exit_code == 0\n"
        "heavy = {'torch', 'paquo', 'jpype', 'sklearn', 'matplotlib', 'skimage', 'scipy', 'numpy',"
        " 'timm', 'lightning_fabric'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = child("-c", code)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_a_mistake_is_told_before_anything_heavy_is_loaded(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from qprd.cli import app\n"
        f"result = CliRunner().invoke(app, ['train', {str(tmp_path)!r}])\n"
        "assert result.exit_code == 3, result.output\n"
        "print(sorted({'torch', 'paquo', 'jpype'} & set(sys.modules)))\n"
    )
    done = child("-c", code)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_it_runs_as_a_module(tmp_path: Path) -> None:
    done = child("-m", "qprd", "--version", cwd=tmp_path)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, f"qprd {qprd.__version__}")


@pytest.mark.parametrize("command", ["train", "predict", "write-back"])
def test_without_a_project_each_command_says_how_to_name_one(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, printed = run(command)
    assert code == ExitCode.INPUT
    assert "There is no QuPath project in this folder" in printed
    assert "where:" in printed
    assert "fix:" in printed


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train", "--patch-px", "65"], "--patch-px"),
        (["train", "--alpha", "many"], "--alpha"),
        (["train", "--similarity", "both"], "--similarity"),
        (["train", "--device", "gpu"], "--device"),
        (["train", "--lr", "-1"], "--lr"),
        (["train", "--seed", "-1"], "--seed"),
        (["train", "--normal", "0"], "--normal"),
        (["predict", "--threshold", "high"], "--threshold"),
        (["predict", "--threshold", "nan"], "--threshold"),
        (["predict", "--threshold", "1e39"], "--threshold"),
        (["train", "--operating-point", "sensitivity"], "sensitivity=0.95"),
        (["predict", "--operating-point", "fp"], "fp-per-slide=1"),
        (["predict", "--stride", "1"], "--stride"),
        (["train", "--config", "none.toml"], "none.toml"),
        (["train", "--config", "broken.toml"], "not valid TOML"),
        (["predict", "--config", "unknown.toml"], "stridee"),
        (["train", "--config", "wrong.toml"], "--lr"),
        (["train", "--from", "nowhere"], "nowhere"),
        (["train", "--patches", "none.csv"], "none.csv"),
        (["predict", "--bundle", "nowhere"], "nowhere"),
        (["evaluate", "--bundle", "nowhere"], "nowhere"),
        (["evaluate", "--assume-mpp", "-1"], "--assume-mpp"),
        (["doctor", "--assume-mpp", "-1"], "--assume-mpp"),
        (["train", "--backend", "imagej"], "imagej"),
        (["train", "--no-such-option"], "--no-such-option"),
        (["traim"], "traim"),
    ],
)
def test_a_wrong_option_is_named_before_the_project_is_opened(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening may start Java. Nothing is a traceback."""
    monkeypatch.setattr(opening, "open_project", lambda *_, **__: pytest.fail("it was opened"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.toml").write_text("[train")
    (tmp_path / "wrong.toml").write_text("[train]\nlr = -1.0\n")
    (tmp_path / "unknown.toml").write_text("[predict]\nstridee = 64\n")
    (tmp_path / "project.qpproj").write_text('{"version": "0.6.0", "images": []}')
    code, printed = run(*words)
    assert code in {ExitCode.USAGE, ExitCode.INPUT}
    assert told in printed
    assert "Traceback" not in printed


def test_the_single_project_of_the_current_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.qpproj").write_text('{"version": "0.6.0", "images": []}')
    code, printed = run("write-back", "--backend", "exchange")
    assert code == ExitCode.INPUT
    assert "The project has no images" in printed
    assert "mine.qpproj" in printed


@pytest.mark.parametrize("content", ["", "[]", "{", '{"images": 3}', "\udcff", "null"])
def test_a_file_that_is_no_project_is_said(tmp_path: Path, content: str) -> None:
    project = tmp_path / "project.qpproj"
    project.write_text(content, errors="surrogateescape")
    for command in ("train", "predict", "write-back", "doctor"):
        code, printed = run(command, project, "--backend", "exchange")
        assert code != 0
        assert str(project) in printed.replace("\n", "")
        assert "Traceback" not in printed


def test_an_error_goes_to_standard_error_only(tmp_path: Path) -> None:
    outcome = CliRunner().invoke(app, ["train", str(tmp_path)])
    assert outcome.stdout == ""
    assert outcome.stderr.startswith("error: ")


def test_control_characters_of_strangers_do_not_reach_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise QprdError("slide \x1b]0;owned\x07\x1b[2J\ud800 is bad", where="a\rb", fix="x")

    monkeypatch.setattr("qprd.files.layout.find_project", fail)
    code, printed = run("train")
    assert code == ExitCode.INPUT
    assert not set(printed) & {"\x1b", "\x07", "\r", "\ud800"}
    assert "is bad" in printed


def test_ctrl_c_before_any_work_is_a_word_and_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("qprd.files.layout.find_project", interrupted)
    assert run("train") == (ExitCode.INTERRUPTED, "Interrupted.\n")


def test_ctrl_c_while_it_starts_is_a_word_and_130(tmp_path: Path) -> None:
    # Stands for a key pressed during the imports.
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt\n")
    start = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import qprd.__main__ as m; m.main()"
    )
    ended = child("-c", start)
    assert (ended.returncode, ended.stderr) == (ExitCode.INTERRUPTED, "Interrupted.\n")


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "view"])  # no report
@pytest.mark.parametrize("file", ["", "missing/report.json"])
def test_a_report_that_cannot_be_written_stops_a_command_before_it_works(
    tmp_path: Path, command: str, file: str
) -> None:
    code, printed = run(command, tmp_path / "nowhere", "--json", tmp_path / file)
    assert code == ExitCode.USAGE
    assert "The report cannot be written here." in printed


@pytest.mark.parametrize(
    "words",
    [[name, "--json"] for name in COMMANDS if name != "view"]
    + [["train", "--log-json"], ["predict", "--log-json"]],
    ids=" ".join,
)
def test_a_project_named_for_a_report_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """As by somebody who takes ``--json`` for a flag, in the folder of a project."""
    monkeypatch.chdir(tmp_path)
    text = '{"version": "0.6.0", "images": []}'
    (tmp_path / "project.qpproj").write_text(text)
    code, _ = run(*words, "project.qpproj")
    assert code == ExitCode.USAGE
    assert (tmp_path / "project.qpproj").read_text() == text


def test_groovy_puts_the_scripts_there_and_says_so(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    code, printed = run("groovy", tmp_path / "new" / "scripts", "--json", report)
    assert code == 0
    written = {str(path) for path in (tmp_path / "new" / "scripts").iterdir()}
    assert set(printed.split()) == written == set(json.loads(report.read_text())["scripts"])
    assert {Path(path).name for path in written} >= {
        "export_annotations.groovy",
        "import_predictions.groovy",
    }


@pytest.mark.parametrize("words", [(), ("scripts", "--install")])
def test_groovy_needs_one_place(words: tuple[str, ...]) -> None:
    code, printed = run("groovy", *words)
    assert code == ExitCode.USAGE
    assert "Name a folder, or give --install alone." in printed


def test_groovy_into_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, printed = run("groovy", tmp_path / "file")
    assert code == ExitCode.FAILED
    assert "fix:" in printed
