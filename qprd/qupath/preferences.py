"""QuPath's user folders, as its preferences name them: where it lists the user's scripts.

QuPath keeps them with Java's own preferences, in a node for each version, ``io.github.qupath/0.6``.
Where and how these are stored depends on the system; the formats are those of the JDK.
"""

from __future__ import annotations

import base64
import plistlib
import re
import string
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from defusedxml import ElementTree

_NODE: Final = "io.github.qupath"
#: Versions whose scripts these are.
_VERSIONS: Final = ("0.5", "0.6", "0.7")
_KEY: Final = "userPath"

#: Java's alphabet for names that not every file system takes.
_ALPHABET: Final = str.maketrans(
    string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/",
    "!\"#$%&'(),-.:;<>@[]^`_{|}~" + string.ascii_lowercase + string.digits + "+?",
)


def user_folders() -> list[Path]:
    """The user folders of all versions of QuPath here, the newest first; none if none is set."""
    found = dict.fromkeys(Path(text) for text in _stored() if text)
    return [folder for folder in found if folder.is_dir()]


def default_user_folders() -> list[Path]:
    """The folders that QuPath offers to be its user folders, as far as there are any."""
    folders = (Path.home() / "QuPath" / f"v{version}" for version in reversed(_VERSIONS))
    return [folder for folder in folders if folder.is_dir()]


def _stored() -> Iterator[str]:
    for version in reversed(_VERSIONS):
        # Preferences of others, whatever they are, must not end the command.
        with suppress(OSError, ValueError, SyntaxError):
            if sys.platform == "win32":
                yield _from_registry(version)
            elif sys.platform == "darwin":
                yield _from_plist(version)
            else:
                yield _from_xml(version)


def _from_xml(version: str) -> str:
    folder = Path.home() / ".java" / ".userPrefs"
    root = ElementTree.parse(folder / _encoded(_NODE) / _encoded(version) / "prefs.xml").getroot()
    entries = {entry.get("key"): entry.get("value") for entry in root.iter("entry")}
    return entries.get(_KEY) or ""


def _encoded(name: str) -> str:
    return "_" + base64.b64encode(name.encode("utf-16-be")).decode("ascii").translate(_ALPHABET)


def _from_plist(version: str) -> str:
    file = Path.home() / "Library" / "Preferences" / "com.apple.java.util.prefs.plist"
    node = plistlib.loads(file.read_bytes())
    for name in ("/", f"{_NODE}/", f"{version}/"):
        node = node.get(name) if isinstance(node, Mapping) else None
    return str(node.get(_KEY, "")) if isinstance(node, Mapping) else ""


def _from_registry(version: str) -> str:
    import winreg  # type: ignore[import-not-found,unused-ignore]

    path = rf"Software\JavaSoft\Prefs\{_NODE}\{version}"
    with winreg.OpenKey(winreg.HKEY_CURRENT_USER, path) as node:  # type: ignore[attr-defined]
        value, _ = winreg.QueryValueEx(node, _KEY.replace("P", "/P"))  # type: ignore[attr-defined]
    return from_registry_value(str(value))


def from_registry_value(text: str) -> str:
    r"""A text that Java wrote to the registry, as it was.

    Examples:
        >>> from_registry_value("/C:///Users//M/u00fcller")
        'C:\\Users\\Müller'
    """

    def character(match: re.Match[str]) -> str:
        code, escaped = match.groups()
        if code:
            return chr(int(code, 16))
        return {"/": "\\", None: "/"}.get(escaped, escaped)

    return re.sub(r"/u([0-9a-fA-F]{4})|/([A-Z/])|\\", character, text)
