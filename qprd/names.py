"""Names of images, classes and files as they are compared, and numbers of things in words."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def composed(name: str) -> str:
    """The form of a name in which two names are compared: accents joined to their letters (NFC).

    macOS and some exporters write an umlaut as a letter and a mark (NFD); people see no difference.

    Examples:
        >>> composed("Gewebepra\u0308parat.tif") == "Gewebepr\u00e4parat.tif"
        True
    """
    return unicodedata.normalize("NFC", name)


def counted(count: int, noun: str) -> str:
    """A number and what it counts, such as ``1 contour`` or ``3 regions to review``.

    Args:
        count: How many.
        noun: Singular; its first word gets the plural's s.

    Examples:
        >>> counted(1, "contour"), counted(0, "region to review")
        ('1 contour', '0 regions to review')
    """
    first, *rest = noun.split(" ")
    return " ".join([str(count), first if count == 1 else f"{first}s", *rest])


def names_of(names: str | Sequence[str]) -> Sequence[str]:
    """Names, of which one may be given by itself."""
    return (names,) if isinstance(names, str) else names
