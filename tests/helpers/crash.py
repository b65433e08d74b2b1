"""A project as a crash in the middle of a write leaves it."""

from __future__ import annotations

import os
from pathlib import Path

from qprd.files.atomic import temporary_name
from qprd.files.backups import Manifest, Subject
from qprd.files.filestate import sha256_of
from qprd.files.journal import Change, is_unfinished, write_journal
from qprd.files.layout import ProjectLayout


class Crash:
    """Two files about to be replaced, as far as that came before a crash."""

    def __init__(self, project: Path) -> None:
        self.root = project.parent
        self.project = project
        step = ProjectLayout(project).backups / "2026-01-01T00-00-00.000000Z" / "0001"
        step.mkdir(parents=True)
        self.changes = [self._change(name, step) for name in ("a", "b")]
        manifest = Manifest(
            command="write-back",
            backend="exchange",
            qprd="1",
            time="2026-01-01T00:00:00+00:00",
            subject=Subject("1", "a.svs"),
            files=tuple(change.recorded(self.root) for change in self.changes),
            folder=step.relative_to(self.root).as_posix(),
        )
        write_journal(project, manifest)

    def _change(self, name: str, step: Path) -> Change:
        target = self.root / name
        staged = temporary_name(self.root / name)
        target.write_text("old")
        staged.write_text("new")
        os.link(target, step / name)
        return Change(target, staged, step / name, sha256_of(target), sha256_of(staged))

    def replace(self, *names: str) -> None:
        for change in self.changes:
            if change.target.name in names:
                assert change.staged is not None
                change.staged.replace(change.target)

    def contents(self) -> list[str]:
        assert not is_unfinished(self.project)
        assert list(self.root.rglob("*.tmp")) == []
        return [change.target.read_text() for change in self.changes]
