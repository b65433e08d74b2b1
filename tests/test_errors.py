from __future__ import annotations

from qprd.errors import ExitCode, QprdError


def test_an_error_tells_what_where_and_what_to_do() -> None:
    error = QprdError("The slide is gone.", where="a.svs", fix="Bring it back.")
    assert str(error).splitlines() == [
        "The slide is gone.",
        "  where: a.svs",
        "  fix:   Bring it back.",
    ]


def test_no_error_ends_with_success() -> None:
    assert QprdError("x").exit_code != ExitCode.OK
    assert [code for code in ExitCode if int(code) == 0] == [ExitCode.OK]
