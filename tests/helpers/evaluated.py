"""Evaluations of a small project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qprd
from qprd.jobs.evaluate.summary import EvaluateSummary
from qprd.progress import SilentProgress
from qprd.qupath.exchange import ExchangeProject


def evaluate(project: Path, **options: Any) -> EvaluateSummary:
    with ExchangeProject(project) as opened:
        return qprd.evaluate(opened, progress=SilentProgress(), **options)


def only_bundle(project: Path) -> Path:
    (bundle,) = (project.parent / "qprd" / "bundles").iterdir()
    return bundle
