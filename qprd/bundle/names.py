"""Names: of a bundle's folder and of the files in it."""

from __future__ import annotations

import itertools
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field

#: The trained weights.
MODEL_FILE: Final = "model.safetensors"
#: Everything else that is needed to use them, as `qprd.bundle.records.BundleInfo`.
INFO_FILE: Final = "bundle.json"
#: The patches of training and validation.
PATCHES_FILE: Final = "patches.csv"
#: A line for each epoch, and its picture.
HISTORY_FILE: Final = "history.csv"
PLOT_FILE: Final = "history.png"

#: The name of a bundle, which goes into file names, object ids and QuPath metadata.
BundleName = Annotated[str, Field(pattern=r"^[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]{0,199}$")]


def new_bundle_name(created: datetime, teacher: str, bundles: Path) -> str:
    """Name a bundle by its time and teacher, with a number if that name is taken.

    Args:
        created: When the bundle was made.
        teacher: Name of its teacher.
        bundles: The folder that holds the bundles of the project; it need not exist.
    """
    name = f"{created:%Y%m%d-%H%M%S}-{teacher.replace(':', '-')}"
    numbered = (name if number == 1 else f"{name}-{number}" for number in itertools.count(1))
    return next(free for free in numbered if not (bundles / free).exists())


def is_bundle(folder: Path) -> bool:
    """Whether a folder holds a bundle, intact or not."""
    return (folder / INFO_FILE).is_file()
