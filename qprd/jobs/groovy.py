"""``qprd groovy``: the scripts that run inside QuPath, copied to where the user wants them."""

from __future__ import annotations

import shutil
from pathlib import Path

from qprd.files.atomic import write_errors
from qprd.qupath.scripts import script_folder


def copy_scripts(folder: Path) -> list[Path]:
    """Copy the scripts into a folder, which is made if need be; older copies are replaced.

    Raises:
        QprdError: the folder cannot be written.
    """
    with write_errors("The scripts", folder, fix="Name a folder that you can write to."):
        folder.mkdir(parents=True, exist_ok=True)
        scripts = sorted(script_folder().glob("*.groovy"))
        return [Path(shutil.copyfile(script, folder / script.name)) for script in scripts]
