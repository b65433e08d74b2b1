from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
#: What Git replaces by the tag in an archive.
DESCRIBED = "$Format:%(describe:tags=true,match=*[0-9]*)$"
PACKAGED = ("qprd", "groovy", "examples", "tests", "benchmarks", "docs")


def build(tree: Path, out: Path) -> tuple[Path, Path]:
    """Build sdist and wheel of a source tree."""
    for target in ("sdist", "wheel"):
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(out)],
            cwd=tree,
            check=True,
            capture_output=True,
        )
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


def files_under(*folders: Path) -> set[str]:
    return {
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources without git, as in a downloaded archive."""
    pytest.importorskip("hatchling", reason="the extra 'test' is not installed")
    pytest.importorskip("hatch_vcs", reason="the extra 'test' is not installed")
    folder = tmp_path_factory.mktemp("tree") / "qprd"
    folder.mkdir()
    for name in PACKAGED:
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc", "*.png")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in (
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "CITATION.cff",
    ):
        shutil.copy(ROOT / name, folder)
    # As it is in the repository; Git fills it in where these sources are out of an archive.
    (folder / ".git_archival.txt").write_text(f"describe-name: {DESCRIBED}\n")
    return folder


def test_the_wheel_holds_the_package_the_scripts_and_the_license_and_no_more(
    tree: Path, tmp_path: Path
) -> None:
    sdist, wheel = build(tree, tmp_path)
    assert wheel.name == "qprd-0.1.0.dev0-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as packed:
        held = set(packed.namelist())
        (entry,) = [name for name in held if name.endswith("entry_points.txt")]
        assert packed.read(entry).decode().split() == [
            "[console_scripts]",
            "qprd",
            "=",
            "qprd.__main__:main",
        ]
    groovy = {f"qprd/{name}" for name in files_under(ROOT / "groovy")}
    expected = files_under(ROOT / "qprd") | groovy
    assert {name for name in held if ".dist-info/" not in name} == expected
    assert {"qprd/py.typed", "qprd/view/static/openseadragon.LICENSE.txt"} <= held
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in held)
    with tarfile.open(sdist) as packed_source:
        sources = {name.partition("/")[2] for name in packed_source.getnames()}
    assert {"README.md", "LICENSE", "pyproject.toml", "tests/test_packages.py"} <= sources
    assert expected - groovy <= sources
    assert not any(name.startswith((".ci", "qprd/groovy")) for name in sources)


@pytest.mark.parametrize("how", ["tag", "commits since the tag", "archive"])
def test_the_version_is_that_of_the_tag(how: str, tree: Path, tmp_path: Path) -> None:
    git = shutil.which("git")
    if git is None:
        pytest.skip("git is not installed")
    work = tmp_path / "work"
    shutil.copytree(tree, work)
    (work / ".gitattributes").write_text((ROOT / ".gitattributes").read_text())
    who = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]

    def run(*arguments: str, cwd: Path = work) -> None:
        subprocess.run([git, *who, *arguments], cwd=cwd, check=True, capture_output=True)

    run("init", "-q")
    run("add", ".")
    run("commit", "-qm", "all")
    run("tag", "v0.7.1")
    if how == "commits since the tag":
        run("commit", "-qm", "more", "--allow-empty")
    if how == "archive":
        run("archive", "-o", str(tmp_path / "archive.tar"), "HEAD")
        work = tmp_path / "unpacked"
        work.mkdir()
        with tarfile.open(tmp_path / "archive.tar") as packed:
            packed.extractall(work)
    sdist, _ = build(work, tmp_path / "out")
    version = sdist.name.removeprefix("qprd-").removesuffix(".tar.gz")
    if how == "commits since the tag":
        assert version.startswith("0.7.2.dev1")
    else:
        assert version == "0.7.1"


def test_the_sdist_builds_the_same_wheel(tree: Path, tmp_path: Path) -> None:
    sdist, wheel = build(tree, tmp_path / "first")
    with tarfile.open(sdist) as packed:
        packed.extractall(tmp_path)
    (unpacked,) = tmp_path.glob("qprd-*")
    _, again = build(unpacked, tmp_path / "second")
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        assert sorted(first.namelist()) == sorted(second.namelist())
