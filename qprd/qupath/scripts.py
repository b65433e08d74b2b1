"""The Groovy scripts that run inside QuPath: where they are, and how to get them out."""

from __future__ import annotations

import shutil
from pathlib import Path

from qprd.errors import ExitCode, QprdError


def script_folder() -> Path:
    """The folder with the scripts: ``qprd/groovy`` in a wheel, ``groovy`` beside it in a checkout.

    Raises:
        QprdError: neither is there.
    """
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


def copy_scripts(target: Path) -> list[Path]:
    """Copy the scripts into a folder, which is made if need be; older copies are replaced.

    Returns:
        The copies, by name.

    Raises:
        QprdError: the folder cannot be written.
    """
    try:
        target.mkdir(parents=True, exist_ok=True)
        return [
            Path(shutil.copyfile(script, target / script.name))
            for script in sorted(script_folder().glob("*.groovy"))
        ]
    except OSError as error:
        raise QprdError(
            f"The scripts cannot be written there: {error.strerror}.",
            where=str(target),
            fix="Name a folder that you can write.",
            exit_code=ExitCode.FAILED,
        ) from error
