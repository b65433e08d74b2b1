"""Names of images, classes and files, which programs write in different Unicode forms."""

from __future__ import annotations

import unicodedata


def composed(name: str) -> str:
    """The form of a name in which two names are compared: accents joined to their letters (NFC).

    macOS and some exporters write an umlaut as a letter and a mark (NFD); people see no difference.

    Example:
        >>> composed("Gewebepra\u0308parat.tif") == "Gewebepr\u00e4parat.tif"
        True
    """
    return unicodedata.normalize("NFC", name)
