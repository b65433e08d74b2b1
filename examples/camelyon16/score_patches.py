"""Score the test patches of a patch table: the paper's patch accuracy, on the paper's own patches.

    python examples/camelyon16/score_patches.py PROJECT test_patches.csv

``qprd evaluate`` measures every cell of the test slides; this, the patches somebody listed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qprd.bundle.reading import load_bundle, newest_bundle
from qprd.bundle.records import BundleInfo
from qprd.device import make_fabric
from qprd.errors import QprdError
from qprd.evaluation.bootstrap import Interval, patch_intervals
from qprd.evaluation.cells import LabeledScores
from qprd.evaluation.metrics import (
    accuracy,
    auroc,
    average_precision,
    balanced_accuracy,
    sensitivity,
    specificity,
)
from qprd.files.layout import ProjectLayout, find_project
from qprd.given_settings import stored_train_config
from qprd.jobs.reporting import write_json_object
from qprd.progress import Progress, TerminalProgress, printable
from qprd.qupath.entry_slides import open_slide
from qprd.qupath.opening import open_project
from qprd.qupath.project import Project
from qprd.sampling.dataset import decode_all
from qprd.sampling.table import PatchTable
from qprd.scoring.by_patch import score_patches
from qprd.slides.fingerprint import KnownSlides, SlideIdentity

#: What the paper states, where its code takes the threshold that suits the test patches best.
_PAPER_THRESHOLD = 2.0
_AT_ONCE = 2048


@dataclass(frozen=True)
class PatchMetrics:
    """Metrics of a bundle on the test patches.

    Attributes:
        bundle: Name of the bundle.
        n_tumor: Number of tumor patches.
        n_normal: Number of normal patches.
        n_slides: Number of slides.
        threshold: Threshold of the bundle; None if it has none.
        metrics: By name; None where undefined.
        intervals: 95 % bootstrap intervals by name, over slides.
        accuracy_at_2: Accuracy at the threshold that the paper states.
    """

    bundle: str
    n_tumor: int
    n_normal: int
    n_slides: int
    threshold: float | None
    metrics: Mapping[str, float | None]
    intervals: Mapping[str, Interval]
    accuracy_at_2: float | None

    def lines(self) -> list[str]:
        """The metrics for people."""
        lines = [
            f"{self.n_tumor} tumor and {self.n_normal} normal patches of {self.n_slides} slides, "
            f"bundle {self.bundle}"
        ]
        if self.threshold is not None:
            lines.append(f"threshold, from validation patches: {self.threshold:.3f}")
        for name, value in self.metrics.items():
            interval = self.intervals.get(name)
            over = (
                ""
                if interval is None
                else f"  ({interval.low:.3f} to {interval.high:.3f} over {interval.unit})"
            )
            shown = "undefined" if value is None else f"{value:.3f}"
            lines.append(f"{name.replace('_', ' '):>18} {shown}{over}")
        if self.accuracy_at_2 is not None:
            lines.append(f"{'accuracy at 2':>18} {self.accuracy_at_2:.3f}")
        return lines


def score_test_patches(
    project: Project,
    table: PatchTable,
    bundle: Path,
    *,
    device: str = "auto",
    weights: Path | None = None,
    progress: Progress,
) -> PatchMetrics:
    """Score the patches of the split ``test`` and compare the scores with their labels.

    Args:
        project: Has the slides.
        table: Its test patches are scored.
        bundle: The model.
        device: Where to compute.
        weights: The teacher's weights on disk.
        progress: Shows what takes long.

    Raises:
        QprdError: no test patch, a patch of a slide that the model has seen, or of another size.
    """
    test = table.subset("test")
    if not len(test):
        raise QprdError(
            "The table has no test patches.", fix="Give centers_to_patches.py the test lists, too."
        )
    fabric = make_fabric(device, "auto")
    model, info = load_bundle(bundle, weights=weights, device=fabric.device)
    _check(test, info)
    entries = {entry.id: entry for entry in project.entries()}
    unknown = sorted({p.name for p in test.patches if p.slide not in entries})
    if unknown:
        raise QprdError("These slides are not in the project.", where=", ".join(unknown[:10]))
    scores = []
    with progress.task("scoring patches", len(test)) as task, tempfile.TemporaryDirectory() as tmp:
        for start in range(0, len(test), _AT_ONCE):
            part = PatchTable(test.patches[start : start + _AT_ONCE])
            images = decode_all(
                part,
                lambda entry_id: open_slide(entries[entry_id]),
                patch_px=info.network.patch_px,
                folder=Path(tmp),
            )
            config = stored_train_config(info.training.config, where=info.name)
            scores.append(
                score_patches(
                    model,
                    images,
                    fabric=fabric,
                    batch_size=config.batch_size,
                    reduction=info.scoring.patch_score,
                )
            )
            task.advance(len(part))
    return _metrics(test, np.concatenate(scores).astype(np.float64), info)


def _check(test: PatchTable, info: BundleInfo) -> None:
    known = KnownSlides([*info.training.slides, *info.training.validation_slides])
    seen = {p.name for p in test.patches if SlideIdentity(p.name, p.fingerprint) in known}
    if seen:
        raise QprdError(
            "The model has seen these test slides in training or validation.",
            where=", ".join(sorted(seen)),
        )
    own = info.network.mpp
    mpp = {patch.mpp for patch in test.patches if abs(patch.mpp - own) > 1e-6 * own}
    if mpp:
        raise QprdError(
            f"The table is for {min(mpp):g} um/px; the model works at {info.network.mpp:g}.",
            fix="Make the table with the --mpp that the model was trained with.",
        )


def _metrics(test: PatchTable, scores: np.ndarray, info: BundleInfo) -> PatchMetrics:
    y_true = test.is_tumor
    slides = np.array([patch.slide for patch in test.patches])
    threshold = info.scoring.threshold
    metrics: dict[str, float | None] = {
        "auroc": auroc(y_true, scores),
        "average_precision": average_precision(y_true, scores),
    }
    if threshold is not None:
        for metric in (accuracy, balanced_accuracy, sensitivity, specificity):
            metrics[metric.__name__] = metric(y_true, scores, threshold)
    names: Sequence[str] = sorted(set(slides.tolist()))
    labeled = [LabeledScores(y_true[slides == name], scores[slides == name]) for name in names]
    return PatchMetrics(
        bundle=info.name,
        n_tumor=int(y_true.sum()),
        n_normal=int((~y_true).sum()),
        n_slides=len(names),
        threshold=threshold,
        metrics=metrics,
        intervals=patch_intervals(labeled, threshold=threshold),
        accuracy_at_2=accuracy(y_true, scores, _PAPER_THRESHOLD),
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("project", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="default: the newest")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="of the teacher")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    file = find_project(arguments.project)
    bundle = arguments.bundle or newest_bundle(ProjectLayout(file).bundles)
    try:
        table = PatchTable.from_csv(arguments.table)
    except OSError as error:
        raise QprdError(
            f"The table cannot be read: {error.strerror}.", where=str(arguments.table)
        ) from error
    # Nothing but the slides is needed, whichever backend has the annotations.
    project, _ = open_project(file, backend="exchange")
    with project:
        figures = score_test_patches(
            project,
            table,
            bundle,
            device=arguments.device,
            weights=arguments.weights,
            progress=TerminalProgress(),
        )
    for line in figures.lines():
        print(printable(line))
    write_json_object(arguments.json, figures)


if __name__ == "__main__":
    try:
        main()
    except QprdError as error:
        sys.exit(printable(f"error: {error}"))
