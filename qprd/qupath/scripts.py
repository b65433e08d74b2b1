"""The Groovy scripts that run inside QuPath, each one file that holds a copy of the code it shares.

Shared code stands in ``groovy/parts/``. A script has a pair of marker lines for each part that it
takes code from; ``python -m qprd.qupath.scripts`` writes that code between them. Of a part, a
script gets the constants, methods and classes that it uses, directly or through others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from qprd.errors import ExitCode, QprdError

_BLOCK: Final = re.compile(
    r"^// ---- part (\w+)\b.*\n(?:.*\n)*?// ---- end of part \1 ----\n", re.MULTILINE
)
_IMPORT: Final = re.compile(r"^import ([\w.]+)\n+", re.MULTILINE)
_COMMENT: Final = re.compile(r"^ */\*(?:.*\n)*?.*\*/\n+|^ *//.*\n", re.MULTILINE)
#: The first line of a constant, a class or a method, whose name is the word captured.
_DEFINITION: Final = re.compile(r"(?! )(?:@Field .* (\w+) =|class (\w+)\b|[\w<>\[\], ]+? (\w+)\()")


def script_folder() -> Path:
    """The folder of the scripts: ``qprd/groovy`` in a wheel, ``groovy`` beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "groovy", package.parent / "groovy"):
        if any(folder.glob("*.groovy")):
            return folder
    raise QprdError(
        "This installation has no Groovy scripts.",
        where=str(package),
        fix="Install qprd again.",
        exit_code=ExitCode.FAILED,
    )


def with_parts(script: str, parts: Mapping[str, str]) -> str:
    """A script with the code of its parts as it is now, and the imports of what it uses.

    Args:
        script: Its text, with marker lines and whatever is between them.
        parts: The texts of all parts by name.
    """
    names = [block[1] for block in _BLOCK.finditer(script)]
    definitions = {
        name: list(_definitions(_IMPORT.sub("", _COMMENT.sub("", parts[name], count=1))))
        for name in names
    }
    used = set(_words(_BLOCK.sub("", script)))
    missing = [one for name in names for one in definitions[name]]
    while found := [one for one in missing if one[0] in used]:
        missing = [one for one in missing if one[0] not in used]
        used.update(word for _, text in found for word in _words(text))

    def block(match: re.Match[str]) -> str:
        name = match[1]
        kept = (text for defined, text in definitions[name] if defined in used)
        code = "\n".join(text if text.startswith("@Field") else f"\n{text}\n" for text in kept)
        code = re.sub(r"\n{3,}", "\n\n", code)
        return (
            f"// ---- part {name}: generated from parts/{name}.groovy, do not edit here ----\n"
            f"{code.strip()}\n// ---- end of part {name} ----\n"
        )

    text = _BLOCK.sub(block, script)
    imported = {
        *_IMPORT.findall(text),
        *(i for name in names for i in _IMPORT.findall(parts[name])),
    }
    code = _IMPORT.sub("", text)
    used = set(_words(code))
    kept = sorted(name for name in imported if name.rsplit(".", 1)[1] in used)
    java = [name for prefix in ("javax.", "java.") for name in kept if name.startswith(prefix)]
    groups = [[name for name in kept if name not in java], java]
    head, body = re.split(r"(?<=^ \*/\n)\n+", code, maxsplit=1, flags=re.MULTILINE)
    lines = "\n".join("".join(f"import {name}\n" for name in group) for group in groups if group)
    return "\n".join(filter(None, (head, lines, body)))


def _definitions(part: str) -> Iterator[tuple[str, str]]:
    """Names and texts of what a part defines; comments and annotations belong to what follows."""
    text, name = "", ""
    for line in part.splitlines(keepends=True):
        match = _DEFINITION.match(line)
        if name and line.strip() and not re.match(r"[ }]", line):
            yield name, text.strip()
            text, name = "", ""
        if match:
            name = next(filter(None, match.groups()))
        text += line
    yield name, text.strip()


def _words(text: str) -> list[str]:
    """The words of code, without its comments."""
    return re.findall(r"\w+", _COMMENT.sub("", text))


def update_scripts(folder: Path) -> list[Path]:
    """Write the parts into all scripts of a folder; those that changed."""
    parts = {path.stem: path.read_text("utf-8") for path in (folder / "parts").glob("*.groovy")}
    changed = []
    for path in sorted(folder.glob("*.groovy")):
        text = path.read_text("utf-8")
        updated = with_parts(text, parts)
        if updated != text:
            path.write_text(updated, "utf-8", newline="\n")
            changed.append(path)
    return changed


if __name__ == "__main__":
    for changed_script in update_scripts(script_folder()):
        print(changed_script)
