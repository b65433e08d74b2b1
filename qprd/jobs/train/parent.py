"""``qprd train --from BUNDLE``: the earlier bundle that a training continues from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qprd.bundle.ancestry import (
    MAX_ANCESTORS,
    Ancestor,
    AnnotationChanges,
    SlideAnnotations,
    annotation_changes,
)
from qprd.bundle.names import MODEL_FILE
from qprd.bundle.reading import load_bundle, read_bundle_info
from qprd.bundle.records import BundleInfo
from qprd.errors import ExitCode, QprdError
from qprd.files.filestate import sha256_of
from qprd.given_settings import stored_train_config
from qprd.qupath.entry_slides import recorded_name
from qprd.sampling.splits import Split
from qprd.sampling.table import PatchTable
from qprd.settings import TrainConfig

if TYPE_CHECKING:
    from qprd.model.network import Network
    from qprd.model.teacher import Teacher


@dataclass(frozen=True)
class StartingPoint:
    """What a training starts from: a teacher, and an earlier bundle, if it continues from one.

    Attributes:
        teacher: The frozen network.
        trained: The model of the earlier bundle, if its weights are the start.
        parent: Description of the earlier bundle; None without one.
        ancestors: The earlier bundle and those before it, the nearest first.
    """

    teacher: Teacher
    trained: Network | None = None
    parent: BundleInfo | None = None
    ancestors: tuple[Ancestor, ...] = ()

    def model(self, config: TrainConfig, n_tumor: int) -> Network:
        """Return the model to train on so many tumor patches: a new one, or the trained one."""
        from qprd.model.assembly import build_network
        from qprd.training.recipes import model_of

        if self.trained is not None:
            return self.trained
        return build_network(model_of(config.recipe, n_tumor), self.teacher, config.seed)

    def splits(self) -> dict[str, Split]:
        """Splits of the earlier bundle's slides, by image name.

        They hold where the metadata of a slide name none. An only slide that was cut in two counts
        as trained on: the weights know a part of it.
        """
        if self.parent is None:
            return {}
        splits: dict[str, Split] = dict.fromkeys(self.parent.training.validation_slides, "val")
        return splits | dict.fromkeys(self.parent.training.slides, "train")

    def refuse_leak(self, table: PatchTable) -> None:
        """Refuse to validate on slides that the weights were trained on.

        An only slide is cut in two each time, which has its own warning.

        Raises:
            QprdError: that would happen.
        """
        if self.parent is None or len({patch.slide for patch in table.patches}) < 2:
            return
        for patch in table.subset("val").patches:
            if recorded_name(patch.name) in self.parent.training.slides:
                raise QprdError(
                    f"{patch.name} is to validate, but {self.parent.name} was trained on it: "
                    "threshold and probability would be too optimistic.",
                    where="--from",
                    fix="Set its metadata 'split' to train, or train without --from.",
                )

    def with_earlier(
        self, training: Sequence[str], validation: Sequence[str]
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Add the slides of all ancestors to the names of training and validation slides.

        A slide that validated an ancestor and is trained on now counts as trained on.
        """
        if self.parent is None:
            return tuple(training), tuple(validation)
        trained = tuple(dict.fromkeys((*training, *self.parent.training.slides)))
        earlier = (name for name in self.parent.training.validation_slides if name not in trained)
        return trained, tuple(dict.fromkeys((*validation, *earlier)))

    def changes(self, seen: Sequence[SlideAnnotations]) -> AnnotationChanges | None:
        """Compare annotations with those of the earlier bundle; None where that is not known."""
        if self.parent is None or not self.parent.training.annotations:
            return None
        return annotation_changes(self.parent.training.annotations, seen)


def parent_settings(folder: Path) -> TrainConfig:
    """Read the settings that a bundle was trained with.

    Raises:
        QprdError: it is no bundle, or damaged.
    """
    return stored_train_config(read_bundle_info(folder).training.config, where=str(folder))


def starting_point(config: TrainConfig, parent: Path | None) -> StartingPoint:
    """Load the teacher, and under the recipe ``paper`` the model of the bundle to continue from.

    Args:
        config: Settings of the training.
        parent: The bundle, or None.

    Raises:
        QprdError: the bundle is of another kind than the settings ask for, or it is damaged, has
            no weights, or another teacher.
    """
    from qprd.model.teacher import build_teacher

    weights = None if config.weights is None else Path(config.weights)
    if parent is None:
        return StartingPoint(build_teacher(config.teacher, weights=weights))
    info = read_bundle_info(parent)
    digest = sha256_of(parent / MODEL_FILE)
    if digest is None:
        raise QprdError(
            f"The bundle is damaged: {MODEL_FILE} is missing.",
            where=str(parent),
            fix="Check the folder given to --from.",
        )
    _require_same_kind(info, config, parent)
    trained = None
    if config.recipe == "paper":
        trained, _ = load_bundle(parent, weights=weights)
    teacher = build_teacher(config.teacher, weights=weights) if trained is None else trained.teacher
    ancestors = (Ancestor(info.name, digest, info.created), *info.training.ancestors)
    return StartingPoint(teacher, trained, info, ancestors[:MAX_ANCESTORS])


def _require_same_kind(info: BundleInfo, config: TrainConfig, folder: Path) -> None:
    compared: list[tuple[str, object, object]] = [("recipe", config.recipe, info.network.recipe)]
    if config.recipe == "paper":  # whose weights mean nothing for other maps
        compared += [
            ("teacher", config.teacher, info.network.teacher.name),
            ("mpp", config.mpp, info.network.mpp),
            ("patch-px", config.patch_px, info.network.patch_px),
        ]
    for option, asked, has in compared:
        if asked != has:
            raise QprdError(
                f"The bundle was trained with {option} {has}, and a training that continues from "
                f"it cannot have {asked}.",
                where=str(folder),
                fix=f"Leave out --{option} (and its line in the --config file), or train without "
                "--from.",
                exit_code=ExitCode.USAGE,
            )
