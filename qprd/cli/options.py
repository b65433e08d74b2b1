"""Options of the commands: made from the models of settings, or defined here once for all."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer
from pydantic.fields import FieldInfo

from qprd.checked import Backend
from qprd.errors import ExitCode, QprdError
from qprd.given_settings import some_settings
from qprd.option import PROJECT, help_text, option_name, option_of
from qprd.settings import PredictConfig, TrainConfig

if TYPE_CHECKING:
    from qprd import Project

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE.toml",
        help="Settings under \\[train] and \\[predict], named like the options. "
        "Options on the command line win.",
    ),
]


def _writable(file: Path | None) -> Path | None:
    """Refuse a file that cannot be written, or is no report, before any work is done for it."""
    if file is not None:
        # Whoever takes --json for a flag names the project here.
        is_file = file.is_file() and not file.is_symlink()  # as /dev/stdout is
        if is_file and file.suffix.lower() != ".json" and file.stat().st_size:
            raise QprdError(
                "This file is there already, and by its name it is no report.",
                where=f"--json {file}",
                fix="Give --json a new file for the report, such as report.json.",
                exit_code=ExitCode.USAGE,
            )
        existing = file if file.exists() else file.parent
        if file.is_dir() or not file.parent.is_dir() or not os.access(existing, os.W_OK):
            raise QprdError(
                "The report cannot be written here.",
                where=f"--json {file}",
                fix="Give --json a file in an existing, writable folder.",
                exit_code=ExitCode.USAGE,
            )
    return file


def _trained(folder: Path | None) -> Path | None:
    """Refuse a folder that holds no model before the project is opened."""
    import qprd

    return None if folder is None else qprd.Model(folder).bundle


def existing(file: Path | None) -> Path | None:
    """Refuse a file that is not there before the project is opened."""
    if file is not None and not file.is_file():
        raise QprdError("There is no such file.", where=str(file), fix="Check the path.")
    return file


JsonOption = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar="FILE",
        help="Also write the report to this file as JSON.",
        callback=_writable,
    ),
]
LogJsonOption = Annotated[
    Path | None,
    typer.Option(
        "--log-json",
        metavar="FILE",
        help="Append a line of JSON to this file for each thing that happens, as it happens.",
    ),
]
EventsOption = Annotated[
    bool,
    typer.Option(
        "--events",
        help="For other programs: write a line of JSON to standard output for each thing that "
        "happens, as it happens, and nothing else there.",
    ),
]
BundleOption = Annotated[
    Path | None,
    typer.Option(
        "--bundle",
        metavar="DIR",
        help="Folder of a trained model. Default: the newest one.",
        callback=_trained,
    ),
]
BackendOption = Annotated[
    Backend,
    typer.Option(
        help="paquo: through a QuPath on this computer. exchange: through project.qpproj and "
        "GeoJSON files, without QuPath. auto: paquo where a QuPath is found.",
        rich_help_panel=PROJECT,
    ),
]
DryRunOption = Annotated[
    bool,
    typer.Option("--dry-run", help="Say what would change, in which files, and change nothing."),
]


@dataclass(frozen=True)
class ProjectOptions:
    """The project of a command, and where its slides are."""

    project: Annotated[
        Path | None,
        typer.Argument(
            metavar="PROJECT",
            help="project.qpproj or its folder. Default: the only *.qpproj in this folder.",
            show_default=False,
        ),
    ] = None
    backend: BackendOption = "auto"
    slides: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="Look here for slides that have moved, by file name. Repeatable.",
            rich_help_panel=PROJECT,
        ),
    ] = None

    annotations: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Take annotations from the GeoJSON files in this folder (.geojson, .json, also "
            "with .gz), named by entry id or image name (colon_1.tif.geojson). Implies the "
            "exchange backend.",
            rich_help_panel=PROJECT,
        ),
    ] = None
    events: EventsOption = False

    def open(self) -> Project:
        """Open the project."""
        import qprd

        return qprd.open_project(
            self.project or Path(),
            backend=self.backend,
            slides=self.slides or (),
            annotations=self.annotations,
        )


@dataclass(frozen=True)
class Group:
    """Marks a parameter of a command that stands for several options.

    Attributes:
        options: The options, as parameters that Typer understands.
        collect: Makes the command's argument of their values.
    """

    options: tuple[inspect.Parameter, ...]
    collect: Callable[..., Any]


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default
    )


def project_options(*, without: str = "") -> Group:
    """The options of `ProjectOptions`, but the one named."""
    hints = get_type_hints(ProjectOptions, include_extras=True)
    options = (
        _parameter(field.name, hints[field.name], field.default)
        for field in dataclasses.fields(ProjectOptions)
        if field.name != without
    )
    return Group(tuple(options), ProjectOptions)


ProjectGroup = Annotated[ProjectOptions, project_options()]

#: Settings by name, as `settings` says.
Given = dict[str, Any]


def settings(config: type[TrainConfig | PredictConfig], *names: str) -> Group:
    """The options that are made from a model of settings.

    Args:
        config: The model.
        names: The settings that the command has, by name; it gets those that were given, checked.
            If none is named it has all, and gets them as they are, to combine with a file.
    """
    named = {name: config.model_fields[name] for name in names or config.model_fields}

    def collect(**values: Any) -> Given:
        given = {name: values[option_name(name, field)] for name, field in named.items()}
        return some_settings(config, given) if names else given

    options = (
        _parameter(option_name(name, field), _option(field), None) for name, field in named.items()
    )
    return Group(tuple(options), collect)


def expand(command: Callable[..., None]) -> Callable[..., None]:
    """Replace the groups among a command's parameters by their options, as Typer wants them."""
    shown: list[inspect.Parameter] = []
    groups: dict[str, Group] = {}
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        mark = (*getattr(parameter.annotation, "__metadata__", ()), None)[0]
        if isinstance(mark, Group):
            groups[parameter.name] = mark
            shown += mark.options
        else:
            shown.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def expanded(**values: Any) -> None:
        for name, group in groups.items():
            members = {option.name: values.pop(option.name) for option in group.options}
            values[name] = group.collect(**members)
        command(**values)

    expanded.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    expanded.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return expanded


def _option(field: FieldInfo) -> Any:
    """The type of a setting's option: None where it is not given."""
    option = option_of(field)
    shown = typer.Option(
        metavar=option.metavar,
        help=help_text(field).replace("[", "\\["),
        rich_help_panel=option.panel,
    )
    return Annotated[_typed(field.annotation) | None, shown]


def _typed(annotation: Any) -> Any:
    """What Typer makes of an option's text; the model checks the rest, and all of what is mixed."""
    if get_origin(annotation) in (Union, UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not NoneType]
        return _typed(kinds[0]) if len(kinds) == 1 else str
    if get_origin(annotation) is Annotated:
        return _typed(get_args(annotation)[0])
    return list[str] if get_origin(annotation) is tuple else annotation
