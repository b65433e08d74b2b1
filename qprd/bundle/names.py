"""Names: of a bundle's folder and of the files in it."""

from __future__ import annotations

import contextlib
import itertools
import re
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


def reserve_bundle(bundles: Path, created: datetime, teacher: str) -> Path:
    """Make the folder of a new bundle, named by its time and teacher.

    Its name has a number if there is such a folder already: of two trainings that end in the same
    second, each gets its own.

    Raises:
        OSError: it cannot be made.
    """
    name = f"{created:%Y%m%d-%H%M%S}-{re.sub('[:/]', '-', teacher)}"
    bundles.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        folder = bundles / (name if number == 1 else f"{name}-{number}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            break
    return folder


def is_bundle(folder: Path) -> bool:
    """Whether a folder holds a bundle, intact or not."""
    return (folder / INFO_FILE).is_file()
