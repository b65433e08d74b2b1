"""The folder of the Groovy scripts that run inside QuPath."""

from __future__ import annotations

from pathlib import Path

from qprd.errors import ExitCode, QprdError


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
