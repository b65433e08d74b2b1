"""Hooks of the site: its addresses, the list of errors, and links to files outside of ``docs/``."""

from __future__ import annotations

import ast
import logging
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).resolve().parents[1]

_ERRORS: Final = ("QprdError", "DiskError")
_LINK: Final = re.compile(r"(\]\()([^)\s:#]+)((?:#[^)\s]*)?\))")

#: Parts of the package whose errors users meet, in the order of the page.
_PARTS: Final = {
    "slides": "Slides",
    "qupath": "Projects and QuPath",
    "sampling": "Annotations and splits",
    "given_settings": "Settings",
    "device": "Devices",
    "model": "Teachers and models",
    "training": "Training",
    "bundle": "Bundles",
    "scoring": "Prediction",
    "evaluation": "Evaluation",
    "results": "Results",
    "files": "Files that are written",
    "export": "Export",
    "view": "The viewer",
    "demo": "The demo",
    "jobs": "Commands",
    "others": "Others",
}

_log = logging.getLogger("mkdocs.hooks.qprd")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Take the addresses of the site and of the repository from the package's."""
    import tomllib

    with (ROOT / "pyproject.toml").open("rb") as file:
        urls = tomllib.load(file)["project"]["urls"]
    config.site_url, config.repo_url = urls["Documentation"], urls["Homepage"]
    config.repo_name = urls["Homepage"].partition("github.com/")[2]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page of errors."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, "errors.md", content=errors_page(ROOT / "qprd")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **_: Any) -> str:
    """Lead links out of ``docs/`` to the repository."""
    folder = posixpath.join("docs", posixpath.dirname(page.file.src_uri))

    def elsewhere(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, match[2]))
        if target == "docs" or target.startswith("docs/"):
            return match[0]
        if not (ROOT / target).exists():
            _log.warning("%s: there is no %s", page.file.src_uri, target)
        return f"{match[1]}{config.repo_url}/blob/main/{target}{match[3]}"

    return _LINK.sub(elsewhere, markdown)


def errors_page(package: Path) -> str:
    """Every error with what to do about it, read from the source as Markdown."""
    rows: dict[str, dict[str, str]] = defaultdict(dict)
    for path in sorted(package.rglob("*.py")):
        part = path.relative_to(package).parts[0].removesuffix(".py")
        part = part if part in _PARTS else "others"
        for problem, fix in _errors_of(ast.parse(path.read_text(encoding="utf-8"))):
            rows[part].setdefault(problem, fix)
    lines = [
        "# Errors",
        "",
        "What qprd says when something is wrong, and what to do. Words in *italics* stand for what",
        "is known only then, such as the name of a file. The error names the place (`where:`).",
        "Exit codes: 1 the command failed, 2 an option is wrong, 3 the input is wrong, 130 Ctrl-C,",
        "143 ended by the system.",
    ]
    for part, title in _PARTS.items():
        if part in rows:
            lines += ["", f"## {title}", "", "| error | what to do |", "|---|---|"]
            lines += [f"| {problem} | {fix} |" for problem, fix in sorted(rows[part].items())]
    return "\n".join(lines) + "\n"


def _errors_of(module: ast.Module) -> Iterator[tuple[str, str]]:
    constants = _assigned(module.body)
    for function in ast.walk(module):
        if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        texts = {
            name: value
            for name, value in _assigned(ast.walk(function)).items()
            if isinstance(value, ast.JoinedStr)
        }
        for node in ast.walk(function):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in _ERRORS
                and node.args
            ):
                problem = _text(node.args[0], {**constants, **texts})
                fix = next((word.value for word in node.keywords if word.arg == "fix"), None)
                if problem.strip("* ") and " " in problem:
                    yield problem, "" if fix is None else _text(fix, constants)


def _assigned(nodes: Iterable[ast.AST]) -> dict[str, ast.expr]:
    """What names are assigned, by name."""
    return {
        target.id: node.value
        for node in nodes
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }


def _text(node: ast.expr, constants: dict[str, ast.expr]) -> str:
    """The text of an expression, with names in italics for what is filled in."""
    match node:
        case ast.Constant():
            text = "" if node.value is None else _escaped(str(node.value))
        case ast.JoinedStr():
            text = "".join(_text(part, constants) for part in node.values)
        case ast.BinOp(op=ast.Add()):
            text = _text(node.left, constants) + _text(node.right, constants)
        case ast.IfExp():
            both = [_text(part, constants) for part in (node.body, node.orelse)]
            text = " or: ".join(filter(None, both))
        case ast.FormattedValue() if not isinstance(node.value, ast.Constant):
            text = _text(node.value, constants)
        case ast.Name() if node.id in constants:
            text = _text(constants[node.id], {})
        case _:
            text = _placeholder(node)
    return text


def _placeholder(node: ast.expr) -> str:
    words = [part.id for part in ast.walk(node) if isinstance(part, ast.Name)]
    attributes = [part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)]
    named = next(iter([*attributes[:1], *words]), "...")
    return f"*{named.strip('_').replace('_', ' ').lower()}*"


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_<>|\[\]])", r"\\\1", " ".join(text.split("\n")))
