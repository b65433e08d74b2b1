"""The ``qprd`` command itself: its help, its version, and how errors are shown."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from qprd.errors import ExitCode, QprdError, Terminated
from qprd.events import only_events_on_stdout
from qprd.ranks import this_rank


class _UserErrors(TyperGroup):
    """Prints user errors without a traceback; exit codes are never 0 then."""

    def invoke(self, ctx: Any) -> Any:
        words = [*ctx._protected_args, *ctx.args]
        # Before the command's options are read, as what is wrong with them is an event, too. Of the
        # processes of one command the first alone speaks.
        speaks = "--events" in words and this_rank().is_first
        try:
            with only_events_on_stdout(words[0]) if speaks else nullcontext():
                return super().invoke(ctx)
        except QprdError as error:
            from qprd.progress import printable

            typer.secho("error: ", fg="red", bold=True, err=True, nl=False)
            typer.echo(printable(str(error)), err=True)
            raise typer.Exit(error.exit_code) from error
        except Terminated as stop:
            typer.echo(f"Terminated. {stop}".rstrip(), err=True)
            raise typer.Exit(ExitCode.TERMINATED) from stop
        except KeyboardInterrupt as stop:
            typer.echo(f"Interrupted. {stop}".rstrip(), err=True)
            raise typer.Exit(ExitCode.INTERRUPTED) from stop


class _Messages(logging.Handler):
    """Shows what the library logs, such as the backend that was chosen."""

    def emit(self, record: logging.LogRecord) -> None:
        typer.echo(self.format(record), err=True)


app = typer.Typer(
    name="qprd",
    cls=_UserErrors,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Find tumor in whole slides from a handful of QuPath annotations.\n\n"
    "The main job, in the folder of a QuPath project:\n\n"
    "    qprd train\n\n"
    "    qprd predict --write-back",
)


@app.callback(invoke_without_command=True)
def _before_any_command(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, help="Print the versions of qprd and of what it works with."
        ),
    ] = False,
) -> None:
    if version:
        import qprd

        for name, found in qprd.versions().items():
            typer.echo(f"{name} {found}")
        raise typer.Exit
    log = logging.getLogger("qprd")
    log.setLevel(logging.INFO)
    log.handlers = [one for one in log.handlers if not isinstance(one, _Messages)]
    log.addHandler(_Messages())
