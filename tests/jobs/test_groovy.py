"""The scripts for QuPath, copied to where the user wants them."""

from __future__ import annotations

from pathlib import Path

import pytest

from qprd.errors import QprdError
from qprd.jobs.groovy import copy_scripts
from qprd.qupath.scripts import script_folder


def test_scripts_are_copied_and_replaced(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder"
    names = {path.name for path in script_folder().glob("*.groovy")}
    for _ in range(2):
        copies = copy_scripts(target)
        assert {path.name for path in copies} == names
        for copy in copies:
            assert copy.read_bytes() == (script_folder() / copy.name).read_bytes()
            copy.write_text("changed")


def test_a_target_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(QprdError, match="cannot be written"):
        copy_scripts(tmp_path / "file")
