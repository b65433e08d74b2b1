"""Every code block of the pages is run, checked, or says in front of it why it is not run."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

import qprd
from qprd.cli import app
from tests.test_docstrings import demo  # noqa: F401

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    # README.md
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
COMMANDS = typer.main.get_command(app)

#: What stands in front of a block, or anywhere in a page for all its blocks.
_REASON = re.compile(r"<!-- (not run|run by|blocks not run|blocks run by): \S.* -->")
_BLOCK = re.compile(r"(?ms)^(?P<before>.*?)^```(?P<language>\w*)\n(?P<text>.*?)^```$")


class Block(NamedTuple):
    page: str
    number: int
    before: str
    language: str
    text: str
    excused: bool


def blocks() -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        whole_page = "<!-- blocks " in text and _REASON.search(text) is not None
        for number, match in enumerate(_BLOCK.finditer(text), 1):
            before = match["before"].rstrip().rpartition("\n")[2]
            excused = whole_page or _REASON.fullmatch(before) is not None
            name = page.relative_to(ROOT).as_posix()
            found.append(Block(name, number, before, match["language"], match["text"], excused))
    return found


BLOCKS = blocks()


def some(*languages: str) -> list[Any]:
    return [
        pytest.param(block, id=f"{block.page} {block.number}")
        for block in BLOCKS
        if block.language in languages
    ]


@pytest.mark.parametrize("block", some("python", "sh"))
def test_a_block_says_why_it_is_not_run(block: Block) -> None:
    if block.language == "python" and not block.excused:
        pytest.skip("run below")
    # Named by a marker that .ci/run or another test looks for.
    marked = block.before in ("<!-- test-command -->", "<!-- python-example -->")
    assert block.excused or marked, f"{block.page}, block {block.number}: no reason before it"


@pytest.mark.parametrize("block", some("json", "toml"))
def test_data_can_be_parsed(block: Block) -> None:
    if block.language == "toml":
        tomllib.loads(block.text)
        return
    try:
        json.loads(block.text)
    except ValueError:
        for line in block.text.splitlines():
            json.loads(line)


@pytest.mark.parametrize("block", some("python"))
def test_python_compiles(block: Block) -> None:
    ast.parse(block.text)


@pytest.mark.parametrize("block", some("sh"))
def test_commands_of_qprd_parse(block: Block) -> None:
    lines = block.text.replace("\\\n", " ").splitlines()
    for words in (shlex.split(line, comments=True) for line in lines):
        if words[:1] != ["qprd"] or words[1:2] == ["--version"]:
            continue
        command = COMMANDS.commands[words[1]]  # type: ignore[attr-defined]
        command.make_context(words[1], words[2:], resilient_parsing=False)


@pytest.mark.slow
@pytest.mark.parametrize("block", [b for b in some("python") if not b.values[0].excused])
def test_python_runs(
    block: Block, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``project`` is that of the demo."""
    if block.before == "<!-- python-example -->":
        pytest.skip("run by tests/test_python_page.py")
    monkeypatch.chdir(request.getfixturevalue("demo"))
    names = {"qprd": qprd, "project": qprd.open_project("demo/project", backend="exchange")}
    exec(compile(block.text, block.page, "exec"), names)


def test_the_readme_takes_five_minutes() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 950


def test_the_page_of_errors_has_each_with_its_fix() -> None:
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    page = hooks.errors_page(ROOT / "qprd")
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert len(rows) > 150
    assert [line for line in rows if line.endswith("|  |")] == []
    assert "| There are *count* *label* patches for *split*. | *ask less*" in page
    assert "| PyTorch sees no CUDA device. | Use --device cpu, or install a PyTorch that" in page


def test_each_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    wanted = {re.split(r"[^\w-]", line)[0] for line in project["dependencies"]}
    assert set(re.findall(r"^\| ([\w-]+) \|", page, re.MULTILINE)) - {"package"} == wanted
    for extra in ("timm", "onnx", "log", "view"):
        for line in project["optional-dependencies"][extra]:
            assert re.split(r"[^\w-]", line)[0] in page


def test_the_address_of_the_project_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    addresses = project["urls"]["Homepage"], project["urls"]["Documentation"]
    elsewhere = ("CITATION.cff", "conda/recipe.yaml", ".github/ISSUE_TEMPLATE/config.yml")
    for path in (ROOT / name for name in ("pyproject.toml", "mkdocs.yml", *elsewhere)):
        found = re.findall(
            r"https://github\.com/[\w-]+/qprd\b\S*|https://[\w-]+\.github\.io/qprd\b\S*",
            path.read_text(encoding="utf-8"),
        )
        assert all(one.startswith(addresses) for one in found), path
        assert bool(found) == (path.name != "mkdocs.yml"), path
    home = addresses[0].removeprefix("https://")
    pages = [page for page in PAGES if home in page.read_text(encoding="utf-8")]
    assert pages == [ROOT / "CONTRIBUTING.md"]


def test_the_conda_recipe_has_the_dependencies_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    recipe = (ROOT / "conda" / "recipe.yaml").read_text(encoding="utf-8")
    renamed = {
        "geojson": "python-geojson",
        "matplotlib": "matplotlib-base",
        "torch": "pytorch",
        "typing-extensions": "typing_extensions",
    }
    for line in project["dependencies"]:
        name, limits = re.match(r"([\w-]+)([^;]*)", line).groups()  # type: ignore[union-attr]
        if name != "openslide-bin":  # conda-forge has the library itself
            assert f"    - {renamed.get(name, name)} {limits.strip()}\n" in recipe


def test_the_page_of_the_api_has_each_public_name_from_its_module() -> None:
    listed = re.findall(r"(?m)^::: (\S+)\.(\w+)$", (ROOT / "docs" / "api.md").read_text())
    assert {name for _, name in listed} == set(qprd.__all__) - {"__version__"}
    for module, name in listed:
        assert getattr(importlib.import_module(module), name) is getattr(qprd, name)
