"""``qprd groovy``: the scripts that run inside QuPath, copied to where the user wants them."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qprd.errors import ExitCode, QprdError
from qprd.files.atomic import replacing, write_errors
from qprd.qupath.preferences import default_user_folders, user_folders
from qprd.qupath.scripts import script_folder

#: Starts the last line of a copy, a digest that shows whether a person has changed it since.
_STAMP: Final = "// As qprd wrote it: "
#: Where the window gets the command that starts this qprd.
_COMMAND: Final = re.compile(r"^(@Field static final List<String> INSTALLED = )\[\]$", re.MULTILINE)


@dataclass(frozen=True)
class ScriptCopies:
    """Copies of the scripts.

    Attributes:
        kept: Earlier copies that a person had changed, under other names now.
        is_listed: Whether QuPath lists them among the user's scripts.
    """

    scripts: tuple[Path, ...]
    kept: tuple[Path, ...]
    is_listed: bool
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The copies for people."""
        lines = [str(path) for path in self.scripts]
        lines += [f"note: it had been changed and is kept as {path}" for path in self.kept]
        if self.is_listed:
            lines.append("In QuPath: Automate > User scripts > qprd, then Run.")
        return lines + [f"note: {note}" for note in self.notes]


def copy_scripts(folder: str | Path | None = None) -> ScriptCopies:
    """Copy the Groovy scripts that run inside QuPath.

    Args:
        folder: Made if need be; earlier copies are replaced, and kept under another name where a
            person has changed them. None takes the folder in which QuPath lists user scripts.

    Raises:
        QprdError: the folder cannot be written, or QuPath's is not known.

    Examples:
        >>> [path.name for path in qprd.copy_scripts("scripts").scripts][0]
        'export_annotations.groovy'
    """
    if folder is not None:
        return _copied([Path(folder)], is_listed=False)
    if folders := user_folders():
        return _copied([folder / "scripts" for folder in folders], is_listed=True)
    if folders := default_user_folders():
        note = (
            f"QuPath lists them once {folders[0]} is its user folder: Edit > Preferences > "
            "Extensions > QuPath user directory. Then start QuPath again."
        )
        return _copied([folder / "scripts" for folder in folders], is_listed=True, notes=(note,))
    raise QprdError(
        "QuPath's user folder is not known.",
        fix="Start QuPath, choose one in Edit > Preferences > Extensions, and run this again; or "
        "name a folder for the scripts with qprd groovy DIR.",
        exit_code=ExitCode.FAILED,
    )


def _copied(
    folders: Sequence[Path], *, is_listed: bool, notes: tuple[str, ...] = ()
) -> ScriptCopies:
    copies, kept = [], []
    for folder in folders:
        with write_errors("The scripts", folder, fix="Name a folder that you can write to."):
            folder.mkdir(parents=True, exist_ok=True)
            for script in sorted(script_folder().glob("*.groovy")):
                copy = folder / script.name
                text = _stamped(script.read_text("utf-8"))
                if (earlier := _changed_copy(copy)) is not None:
                    kept.append(earlier)
                with replacing(copy) as temporary:
                    temporary.write_bytes(text.encode())
                copies.append(copy)
    return ScriptCopies(tuple(copies), tuple(kept), is_listed, notes)


def _stamped(script: str) -> str:
    """A script with the command of this qprd in it, and a digest of both as its last line."""
    words = ", ".join(map(_quoted, (sys.executable, "-m", "qprd")))
    text = _COMMAND.sub(lambda match: f"{match[1]}[{words}]", script)
    return f"{text}{_STAMP}{hashlib.sha256(text.encode()).hexdigest()}\n"


def _quoted(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _changed_copy(copy: Path) -> Path | None:
    """Give an earlier copy that a person has changed another name; None if there is none."""
    if not copy.is_file():
        return None
    found = copy.read_bytes().replace(b"\r\n", b"\n")
    earlier, _, digest = found.rpartition(_STAMP.encode())
    if hashlib.sha256(earlier).hexdigest().encode() == digest.strip():
        return None
    number = 1
    while (kept := copy.with_suffix(f".groovy.{number}.bak")).exists():
        number += 1
    return copy.rename(kept)
