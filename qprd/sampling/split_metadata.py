"""The split that a person gave an image in QuPath, as metadata of its entry."""

from __future__ import annotations

from collections.abc import Mapping

from qprd.errors import QprdError
from qprd.sampling.splits import Split

#: Metadata keys, folded, that name the split of an image.
_SPLIT_KEYS = ("split", "train/validation/test type")
_SPELLINGS: Mapping[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


def metadata_split(metadata: Mapping[str, str], image_name: str) -> Split | None:
    """Read the split of an image from the metadata of its entry in QuPath; None if they name none.

    Two keys count, in upper or lower case: ``split``, and ``Train/Validation/Test type``, which
    QuPath's command *Split project train/validation/test* writes.

    Raises:
        QprdError: The value is no split, or two values contradict each other.

    Examples:
        >>> metadata_split({"Train/Validation/Test type": "Validation"}, "a.svs")
        'val'
        >>> metadata_split({"Split": "training"}, "a.svs")
        'train'
    """
    values = {key: text for key, text in metadata.items() if key.strip().casefold() in _SPLIT_KEYS}
    found = {key: _parsed(key, text, image_name) for key, text in values.items()}
    named = {key: split for key, split in found.items() if split is not None}
    if len(set(named.values())) > 1:
        listed = " and ".join(f"{key!r} says {values[key]}" for key in named)
        raise QprdError(
            f"The metadata contradict each other: {listed}.",
            where=image_name,
            fix="Correct or remove one of them in QuPath.",
        )
    return next(iter(named.values()), None)


def _parsed(key: str, text: str, image_name: str) -> Split | None:
    word = text.strip().casefold()
    if word in ("", "none"):
        return None
    for split, spellings in _SPELLINGS.items():
        if word in spellings:
            return split
    raise QprdError(
        f"The metadata {key!r} is {text!r}, not train, val or test.",
        where=image_name,
        fix=f"Change or remove the metadata {key!r} of this image in QuPath.",
    )
