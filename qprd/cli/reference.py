"""``docs/reference.md`` and ``examples/qprd.toml``, made from the commands and the settings.

``python -m qprd.cli.reference`` in the repository writes both anew; a test compares them.
"""

from __future__ import annotations

import inspect
import json
import textwrap
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from typer.models import ArgumentInfo, OptionInfo

from qprd.cli import app
from qprd.option import help_text, option_name, option_of
from qprd.settings import PredictConfig, TrainConfig

REFERENCE = Path("docs/reference.md")
TEMPLATE = Path("examples/qprd.toml")

_WIDTH = 100


def template() -> str:
    """A TOML file with every setting, explained and commented out, at its default."""
    lines = [
        "# Settings for `qprd train --config qprd.toml` and `qprd predict --config qprd.toml`.",
        "# Each has its default here, or an example where there is none. To set one, remove the #",
        "# in front of its name. Options on the command line win.",
    ]
    for table, config in (("train", TrainConfig()), ("predict", PredictConfig())):
        lines += ["", f"[{table}]"]
        for name, field in type(config).model_fields.items():
            value = getattr(config, name)
            shown = value if value not in (None, ()) else option_of(field).example
            about = help_text(field)
            if shown == field.default:
                about = about.partition(" Default: ")[0]
            lines += ["", *textwrap.wrap(f"# {about}", _WIDTH, subsequent_indent="# ")]
            lines.append(f"#{option_name(name, field).replace('_', '-')} = {json.dumps(shown)}")
    return "\n".join(lines) + "\n"


def reference() -> str:
    """Every command with its arguments and options, as Markdown."""
    lines = [
        "# Commands and settings",
        "",
        "<!-- blocks not run: they need a project of yours; tests/test_docs.py parses them -->",
        "",
        "Made by `python -m qprd.cli.reference`. The settings of `train` and `predict` can also",
        "stand in a file: [examples/qprd.toml](../examples/qprd.toml). In Python they are keyword",
        "arguments with underscores: `--patch-px 128` is `patch_px=128`.",
    ]
    for command in app.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__.replace("_", "-")
        about, _, example = str(inspect.getdoc(command.callback)).partition("Example: ")
        lines += ["", f"## qprd {name}", "", *about.strip().splitlines()]
        lines += ["", "```sh", " ".join(example.split()), "```"]
        panels: dict[str, list[str]] = {}
        signature = inspect.signature(command.callback, eval_str=True)
        for parameter in signature.parameters.values():
            kind, shown = get_args(parameter.annotation)
            heading = "Options" if isinstance(shown, OptionInfo) else "Arguments"
            rows = panels.setdefault(shown.rich_help_panel or heading, [])
            rows.append(_row(parameter, kind, shown))
        for panel, rows in panels.items():
            lines += ["", f"| {panel} | | |", "|---|---|---|", *rows]
    return "\n".join(lines) + "\n"


def _row(parameter: inspect.Parameter, kind: Any, shown: OptionInfo | ArgumentInfo) -> str:
    name = shown.default if isinstance(shown.default, str) else "--" + parameter.name
    names = f"`{name.replace('_', '-')}`"
    literals = [part for part in (kind, *get_args(kind)) if get_origin(part) is Literal]
    value = shown.metavar or "|".join(get_args(literals[0]) if literals else ())
    if isinstance(shown, ArgumentInfo):
        names, value = f"`{value}`", ""
    elif kind == bool | None:
        names += f", `--no-{name[2:].replace('_', '-')}`"
    about = str(shown.help).replace("\\[", "[")
    if parameter.default is parameter.empty:
        about += " Required."
    elif parameter.default is not None and parameter.default is not False:
        about += f" Default: {parameter.default}."
    return " | ".join(["", names, value.replace("|", "\\|"), about, ""]).strip()


if __name__ == "__main__":
    REFERENCE.write_text(reference(), encoding="utf-8")
    TEMPLATE.write_text(template(), encoding="utf-8")
