from __future__ import annotations

import json
import math
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from qprd.cli import app
from qprd.cli.session import report
from qprd.errors import QprdError
from qprd.jobs.reporting import plain, write_json_object
from qprd.progress import printable
from tests.helpers.drawn_project import PREDICTION, TRAINING, flags_of, run_qprd


class Color(Enum):
    RED = "red"


@dataclass(frozen=True)
class Report:
    where: Path
    color: Color
    numbers: tuple[float, ...]
    by_name: dict[str, Path | None]

    def lines(self) -> list[str]:
        return ["[red]first[/red]", "second"]


REPORT = Report(Path("a/b"), Color.RED, (1.0, math.nan, math.inf), {"x": None, "y": Path("c")})


def test_a_report_becomes_json_that_any_program_reads(tmp_path: Path) -> None:
    write_json_object(tmp_path / "r.json", REPORT)
    text = (tmp_path / "r.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {
        "where": str(Path("a/b")),
        "color": "red",
        "numbers": [1.0, None, None],
        "by_name": {"x": None, "y": "c"},
    }


def test_a_report_that_cannot_be_written_leaves_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "r.json"
    write_json_object(file, REPORT)
    before = file.read_text()

    def half(path: Path, text: str, encoding: str) -> None:
        with path.open("w", encoding=encoding) as written:
            written.write(text[:5])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(QprdError, match="The report cannot be written"):
        write_json_object(file, {"later": 1})
    assert file.read_text() == before
    assert list(tmp_path.iterdir()) == [file]


def test_a_report_goes_to_a_pipe_or_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    write_json_object(Path("/dev/stdout"), {"a": 1})
    assert json.loads(capfd.readouterr().out) == {"a": 1}


def test_without_a_file_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_json_object(None, REPORT)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_a_missing_folder_is_an_error_with_a_fix(tmp_path: Path) -> None:
    with pytest.raises(QprdError) as caught:
        write_json_object(tmp_path / "none" / "r.json", {})
    assert "--json" in (caught.value.fix or "")


JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@given(JSON_LIKE)
def test_whatever_is_reported_is_valid_json(value: object) -> None:
    text = json.dumps(plain(value), allow_nan=False)
    assert plain(json.loads(text)) == json.loads(text)


def test_markup_in_names_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    report(REPORT, None)
    assert capsys.readouterr().out == "[red]first[/red]\nsecond\n"


@given(st.text(alphabet=st.characters()))
def test_what_is_printed_holds_no_control_sequences(text: str) -> None:
    shown = printable(text + "\x1b[2J\u202e\ud800")
    assert not set(shown) & {"\x1b", "\r", "\u202e", "\ud800", "\x9b", "\x07"}
    shown.encode()
    assert printable("naïve 腫瘍 µm²\n\tx") == "naïve 腫瘍 µm²\n\tx"


@pytest.mark.slow
def test_the_main_job_reports_to_people_and_machines_alike(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two commands in the folder of a project, each in a process of its own."""
    folder = project.parent
    trained = tmp_path / "train.json"
    done = run_qprd(
        "train",
        *flags_of({**TRAINING, "backend": "exchange"}),
        "--json",
        trained,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    assert "Using the exchange backend" in done.stderr
    training = json.loads(trained.read_text())
    assert f"Bundle: {training['bundle']}" in done.stdout
    assert training["patches"]["train"] == {"normal": 16, "tumor": 8}
    assert "16 normal + 8 tumor" in done.stdout
    assert f"threshold {training['validation']['threshold']:.3f}" in done.stdout

    monkeypatch.chdir(folder)
    predicted = tmp_path / "predict.json"
    words = ["predict", "--write-back", "--json", str(predicted), "--backend", "exchange"]
    outcome = CliRunner().invoke(app, [*words, *flags_of(PREDICTION)])
    assert outcome.exit_code == 0, outcome.output
    prediction = json.loads(predicted.read_text())
    assert prediction["bundle"] == training["bundle"]
    for slide in prediction["slides"]:
        assert f"{slide['image']}: score {slide['slide_score']:.3f}" in outcome.output
    tiles = sum(report["tiles"] for report in prediction["write_back"]["written"])
    assert f"Wrote {tiles} tiles" in outcome.output
    assert f"Pictures: {prediction['index']}" in outcome.output

    written = tmp_path / "written.json"
    outcome = CliRunner().invoke(
        app, ["write-back", "--json", str(written), "--backend", "exchange"]
    )
    assert outcome.exit_code == 0, outcome.output
    again = json.loads(written.read_text())
    assert sum(report["replaced"] for report in again["written"]) >= tiles


def test_a_slide_that_failed_makes_the_exit_code_1(trained_project: Path, tmp_path: Path) -> None:
    from tests.helpers.drawn_project import edit

    edit(
        trained_project,
        lambda root: root["images"][1]["serverBuilder"].update(uri="file:/gone/second.tif"),
    )
    report = tmp_path / "r.json"
    outcome = CliRunner().invoke(
        app,
        [
            "predict",
            str(trained_project),
            *flags_of({**PREDICTION, "backend": "exchange", "json": report}),
        ],
    )
    assert outcome.exit_code == 1
    assert "problem: second.tif" in outcome.output
    assert len(json.loads(report.read_text())["problems"]) == 1
