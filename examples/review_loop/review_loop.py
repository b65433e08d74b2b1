"""Annotate a fifth, train, predict, review, train again: what does a review give?

    python examples/review_loop/review_loop.py OUT --data ../shared/data [--json FILE]

A reviewer who knows the drawn regions of colon_1 (`oracle.py`) answers a few predictions a round.
Beside each training on what was reviewed stands one on as many extra patches drawn at random from
all drawn regions. AUROC is measured on one half of colon_2; the other half validates.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import mean
from typing import Any

import shapely
from oracle import Answer, Truth, answered_features, answers, drawn_features

from qprd.bundle.names import PATCHES_FILE
from qprd.bundle.reading import load_bundle
from qprd.device import make_fabric
from qprd.evaluation.metrics import auroc
from qprd.files.layout import ProjectLayout
from qprd.given_settings import predict_config, train_config
from qprd.jobs.predict.job import predict_project
from qprd.jobs.reporting import write_json_object
from qprd.jobs.train.job import train_project
from qprd.jobs.train.summary import TrainSummary
from qprd.progress import Progress, TerminalProgress
from qprd.qupath.exchange import ExchangeProject
from qprd.qupath.geojson import read_annotations
from qprd.qupath.project import Entry
from qprd.sampling.dataset import decode_all
from qprd.sampling.regions import label_regions
from qprd.sampling.sampler import iter_patches, patch_rng
from qprd.sampling.splits import Split
from qprd.sampling.table import LABELS, Label, Patch, PatchTable
from qprd.scoring.by_patch import score_patches
from qprd.settings import TrainConfig
from qprd.slides.slide import Slide
from qprd.slides.tissue import tissue_mask

TRAINED, HELD_OUT = "colon_1.tif", "colon_2.tif"
ANSWERS = ("accepted", "rejected")


@dataclass(frozen=True)
class Plan:
    """How much is drawn, trained on, answered and measured.

    Attributes:
        share: Of the drawn regions, annotated before the first training.
        normal: Normal training patches of the first training.
        tumor: Likewise tumor.
        more_normal: Normal patches that each round adds.
        more_tumor: Likewise tumor.
        rounds: Reviews.
        answers: Answers that the reviewer gives in a round.
        uncertain: Regions marked for review in a round; what is not drawn has no answer.
        stride: Distance of the scores that are predicted in between, see ``qprd predict --help``.
        hard_fraction: See ``qprd train --help``.
        test: Test patches of each class.
        teacher: Of the model.
        patch_px: Edge of its patches; None is what suits the teacher.
        val_patches: Validation patches of each class.
    """

    share: float = 0.2
    normal: int = 60
    tumor: int = 6
    more_normal: int = 10
    more_tumor: int = 6
    rounds: int = 3
    answers: int = 12
    uncertain: int = 40
    stride: int = 128
    hard_fraction: float = 0.5
    test: int = 200
    teacher: str = "efficientnet_lite0"
    patch_px: int | None = None
    val_patches: int = 50

    def config(self, number: int, seed: int) -> TrainConfig:
        """Settings of the training after so many reviews."""
        return train_config(
            {
                "teacher": self.teacher,
                "patch_px": self.patch_px,
                "normal": self.normal + number * self.more_normal,
                "tumor": self.tumor + number * self.more_tumor,
                "val_patches": self.val_patches,
                "hard_fraction": self.hard_fraction,
                "precision": "32",
                "seed": seed,
            }
        )


@dataclass(frozen=True)
class Row:
    """One round of one seed.

    Attributes:
        seed: Of sampling and training.
        number: Reviews before it.
        normal: Normal training patches.
        tumor: Tumor training patches.
        accepted: Contours and regions accepted so far.
        rejected: Likewise rejected.
        reviewed: Training patches that lie in these.
        auroc: On the test patches, trained on what was drawn and reviewed.
        random: Likewise on as many patches, those beyond the first training drawn at random.
    """

    seed: int
    number: int
    normal: int
    tumor: int
    accepted: int
    rejected: int
    reviewed: int
    auroc: float
    random: float


class Loop:
    """The colon project of one seed, with a fifth of colon_1 and one half of colon_2 annotated.

    Args:
        data: The shared data.
        folder: New; it holds the project afterwards.
        plan: How much of everything.
        seed: Of sampling and training.
        progress: Shows bars.
    """

    def __init__(self, data: Path, folder: Path, plan: Plan, seed: int, progress: Progress) -> None:
        self._slides, self._plan, self._seed, self._progress = data / "slides", plan, seed, progress
        shutil.copytree(data / "qupath" / "colon" / "project", folder)
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
        self._file = folder / "project.qpproj"
        drawn = data / "qupath" / "colon" / "annotations"
        self._truth = truth_of(drawn / f"{TRAINED}.geojson", self._slides / TRAINED)
        self._first = self._truth.left(plan.share)
        held_out = truth_of(drawn / f"{HELD_OUT}.geojson", self._slides / HELD_OUT)
        with Slide(self._slides / HELD_OUT) as slide:
            middle, width = slide.width / 2, slide.width
        # No patch of one half reaches into the other.
        gap = plan.config(0, seed).patch_px
        self._annotate(HELD_OUT, drawn_features(held_out.part(0, middle - gap)))
        test = held_out.part(middle + gap, width)
        self._test = self._sampled(HELD_OUT, test, dict.fromkeys(LABELS, plan.test), seed=0)

    def run(self, *, go_on: bool = False) -> Iterator[Row]:
        """Play all rounds.

        Args:
            go_on: Each training starts from the bundle before it, as ``qprd train --from`` does.
        """
        given: list[Answer] = []
        bundle: Path | None = None
        first: PatchTable | None = None
        for number in range(self._plan.rounds + 1):
            self._annotate(TRAINED, drawn_features(self._first) + answered_features(given))
            summary = self._train(number, parent=bundle if go_on else None)
            bundle, review = summary.bundle, summary.origin.review
            if first is None:
                first = PatchTable.from_csv(bundle / PATCHES_FILE)
            own = self._tested(bundle)
            yield Row(
                seed=self._seed,
                number=number,
                normal=summary.patches["train"]["normal"],
                tumor=summary.patches["train"]["tumor"],
                accepted=review.accepted,
                rejected=review.rejected,
                reviewed=review.tumor_patches + review.normal_patches,
                auroc=own,
                random=self._tested(self._at_random(first, number).bundle) if number else own,
            )
            if number < self._plan.rounds:
                given += self._answers(bundle, given)

    def _answers(self, bundle: Path, given: Sequence[Answer]) -> list[Answer]:
        """What the reviewer says of the predictions of a bundle."""
        plan = self._plan
        config = predict_config(
            {
                "images": [TRAINED],
                "uncertain": plan.uncertain,
                "stride": plan.stride,
                "precision": "32",
            }
        )
        with self._opened() as project:
            predict_project(
                project, config, bundle=bundle, write_back=True, progress=self._progress
            )
            found = project.read_predictions(self._entry(project, TRAINED))
        known = [self._first.tumor, self._first.normal, *(a.region.polygon for a in given)]
        return answers(found, self._truth, shapely.union_all(known), plan.answers)

    def _at_random(self, first: PatchTable, number: int) -> TrainSummary:
        """A training on the first patches and as many more as a review adds, drawn at random."""
        plan = self._plan
        more: dict[Label, int] = {
            "normal": number * plan.more_normal,
            "tumor": number * plan.more_tumor,
        }
        extra = self._sampled(TRAINED, self._truth, more, seed=self._seed)
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder) / PATCHES_FILE
            PatchTable((*first.patches, *extra.patches)).to_csv(table)
            return self._train(number, patches=table)

    def _train(
        self, number: int, *, patches: Path | None = None, parent: Path | None = None
    ) -> TrainSummary:
        config = self._plan.config(number, self._seed)
        with self._opened() as project:
            return train_project(
                project, config, patches=patches, parent=parent, progress=self._progress
            )

    def _tested(self, bundle: Path) -> float:
        """AUROC of a bundle on the test patches."""
        model, info = load_bundle(bundle)
        with tempfile.TemporaryDirectory() as folder:
            images = decode_all(
                self._test,
                lambda _: Slide(self._slides / HELD_OUT),
                patch_px=info.network.patch_px,
                folder=Path(folder),
            )
        fabric = make_fabric("cpu", "32")
        scores = score_patches(
            model, images, fabric=fabric, batch_size=32, reduction=info.scoring.patch_score
        )
        area = auroc(self._test.is_tumor, scores)
        assert area is not None
        return area

    def _sampled(
        self, image: str, truth: Truth, counts: Mapping[Label, int], *, seed: int
    ) -> PatchTable:
        """Random patches of drawn regions, the same ones first for whatever number."""
        config = self._plan.config(0, self._seed)
        with self._opened() as project:
            entry = self._entry(project, image)
        patches: list[Patch] = []
        with Slide(self._slides / image) as slide:
            size_px = config.patch_px * config.mpp / (slide.mpp or config.mpp)
            tissue = tissue_mask(slide)
            for label, wanted in counts.items():
                places = iter_patches(
                    truth.tumor if label == "tumor" else truth.normal,
                    tissue,
                    size_px=size_px,
                    bounds=(0, 0, slide.width, slide.height),
                    rng=patch_rng(seed, image, "at random", label),
                    min_coverage=config.min_coverage,
                    max_overlap=config.max_overlap,
                    min_tissue=config.min_tissue,
                )
                split: Split = "train" if image == TRAINED else "test"
                patches += [
                    Patch(entry.id, image, x, y, size_px, config.mpp, label, split)
                    for x, y in islice(places, wanted)
                ]
        return PatchTable(tuple(patches))

    def _annotate(self, image: str, features: list[dict[str, Any]]) -> None:
        """What ``export_annotations.groovy`` would write once a person has saved the image."""
        with self._opened() as project:
            folder = ProjectLayout(project.path).annotations
            file = folder / f"{self._entry(project, image).id}.geojson"
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"type": "FeatureCollection", "features": features}))

    def _opened(self) -> ExchangeProject:
        return ExchangeProject(self._file, slides=[self._slides])

    def _entry(self, project: ExchangeProject, image: str) -> Entry:
        return next(entry for entry in project.entries() if entry.name == image)


def truth_of(annotations: Path, file: Path) -> Truth:
    """The drawn regions of a slide."""
    with Slide(file) as slide:
        assert slide.mpp is not None
        drawn = label_regions(
            read_annotations(annotations), slide.width, slide.height, mpp=slide.mpp
        )
    return Truth(drawn.tumor_region, drawn.normal_region)


def table(rows: Sequence[Row]) -> str:
    """The means over seeds as a Markdown table."""
    lines = [
        "| reviews | patches | answers | from review | AUROC, reviewed | AUROC, at random |",
        "|---|---|---|---|---|---|",
    ]
    for number in sorted({row.number for row in rows}):
        own = [row for row in rows if row.number == number]
        accepted, rejected = (mean(getattr(r, name) for r in own) for name in ANSWERS)
        lines.append(
            f"| {number} | {own[0].normal} + {own[0].tumor} | {accepted:.0f} accepted, "
            f"{rejected:.0f} rejected | {mean(r.reviewed for r in own):.0f} | "
            f"{_spread([r.auroc for r in own])} | {_spread([r.random for r in own])} |"
        )
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def main() -> None:
    """Play the loop for each seed, and print the means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="new folder, for the projects of all seeds")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--hard-fraction", type=float, default=0.5)
    parser.add_argument("--go-on", action="store_true", help="train each round --from the last")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    plan = Plan(hard_fraction=arguments.hard_fraction)
    rows: list[Row] = []
    for seed in arguments.seeds:
        folder = arguments.out / f"seed_{seed}"
        loop = Loop(arguments.data, folder, plan, seed, TerminalProgress())
        for row in loop.run(go_on=arguments.go_on):
            print(row, flush=True)
            rows.append(row)
    write_json_object(arguments.json, {"plan": plan, "rows": rows})
    print(f"\n{table(rows)}")


if __name__ == "__main__":
    main()
