"""From project entries to open slides: the choice of images and the checks before any pixel."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from qprd.checked import MPP_RANGE
from qprd.errors import QprdError
from qprd.names import composed, names_of
from qprd.qupath.project import Entry, Project
from qprd.slides.fingerprint import SlideIdentity, fingerprint
from qprd.slides.frame import Frame
from qprd.slides.slide import Slide, is_plausible_mpp

#: Frames whose sizes differ by this share at most are the same frame at another rounding.
SIZE_TOLERANCE_PX = 1
#: Characters of an image name that a bundle records.
_RECORDED_NAME = 1000


def select_entries(
    project: Project, images: str | Sequence[str], exclude: str | Sequence[str] = ()
) -> list[Entry]:
    """The entries named by ``--image``, or all of them, without those named by ``--exclude``.

    Both take names, patterns such as ``colon_*.tif``, or ``id:3`` for the entry with that id, as
    several may have one name. The order is that of the project.

    Raises:
        QprdError: there is no such image, none is left, or the project is empty.
    """
    entries = list(project.entries())
    if not entries:
        raise QprdError(
            "The project has no images.", where=str(project.path), fix="Add slides in QuPath."
        )
    names = {entry.id: composed(entry.name) for entry in entries}
    chosen = _matching(names_of(images), names, "--image") if images else set(names)
    chosen -= _matching(names_of(exclude), names, "--exclude")
    if not chosen:
        raise QprdError(
            "No image is left to use.", where="--exclude", fix="Exclude fewer, or name others."
        )
    return [entry for entry in entries if entry.id in chosen]


def _matching(wanted: Sequence[str], names: Mapping[str, str], option: str) -> set[str]:
    """The ids of entries, of these names, that were asked for by name, pattern or id."""
    chosen: set[str] = set()
    for one in map(composed, wanted):
        # A name may hold the brackets of a pattern.
        found = {entry_id for entry_id, name in names.items() if name == one} or {
            entry_id
            for entry_id, name in names.items()
            if f"id:{entry_id}" == one or fnmatchcase(name, one)
        }
        if not found:
            known = list(dict.fromkeys(names.values()))
            close = difflib.get_close_matches(one, known, n=3)
            raise QprdError(
                f"The project has no image {one!r}.",
                where=option,
                fix=f"Did you mean {' or '.join(close)}?"
                if close
                else f"Its images: {', '.join(known[:10])}{', ...' if len(known) > 10 else ''}.",
            )
        chosen |= found
    return chosen


def open_slide(entry: Entry, *, assume_mpp: float | None = None) -> Slide:
    """Open the pixels of an entry in its QuPath frame.

    Raises:
        QprdError: the slide is missing, unsupported, unreadable, of another size than the project
            records, or without a resolution.
    """
    source = entry.source
    if source.unsupported is not None:
        raise QprdError(
            f"This image cannot be used: {source.unsupported}.",
            where=entry.name,
            fix="Leave it out with --exclude NAME; qprd works on plain 8-bit RGB slides.",
        )
    if source.path is None:
        raise QprdError(
            f"The slide is not where the project says: {source.uri}",
            where=entry.name,
            fix="Name the folder it is in with --slides DIR.",
        )
    mpp = source.mpp
    if mpp is not None and not is_plausible_mpp(mpp):
        if assume_mpp is None:
            raise QprdError(
                f"The project says that a pixel is {mpp:g} um wide. No microscope gives that "
                f"(possible are {MPP_RANGE[0]:g} to {MPP_RANGE[1]:g} um); it may be the setting of "
                "a screen or a printer.",
                where=entry.name,
                fix="Correct the pixel size in QuPath's Image tab, or give --assume-mpp UM "
                "(0.25 for 40x, 0.5 for 20x).",
            )
        mpp = assume_mpp
    slide = Slide(
        source.path,
        mpp=mpp,
        default_mpp=assume_mpp,
        rotation=source.rotation,
        crop=source.crop,
        use_bounds=source.use_bounds,
    )
    try:
        _check(entry, slide)
    except QprdError:
        slide.close()
        raise
    return slide


def slide_identity(entry: Entry, slide: Slide) -> SlideIdentity:
    """The identity of the slide of an entry."""
    return SlideIdentity.of(recorded_name(entry.name), fingerprint(slide.path), slide.frame)


def identity_of(entry: Entry) -> SlideIdentity:
    """As `slide_identity`; no more than the name if the slide is missing or cannot be read."""
    try:
        with open_slide(entry, assume_mpp=1.0) as slide:
            return slide_identity(entry, slide)
    except QprdError:
        return SlideIdentity(recorded_name(entry.name))


def file_size(entry: Entry) -> int | None:
    """Bytes of the file of an entry; None if it is missing. Copies of one slide are as large."""
    try:
        return None if entry.source.path is None else entry.source.path.stat().st_size
    except OSError:
        return None


def require_same_slide(entry: Entry, now: SlideIdentity, predicted: SlideIdentity) -> None:
    """Make sure that results are of the slide that an entry shows.

    Raises:
        QprdError: it is another one: ids change when a project is made anew.
    """
    if not now.is_same_file_as(predicted):
        raise QprdError(
            f"The results kept for image {entry.id}, {entry.name}, are of another slide, "
            f"{predicted.name}.",
            where=entry.name,
            fix="Run qprd predict again.",
        )


def require_same_image(entry: Entry, predicted: SlideIdentity, frame: Frame) -> None:
    """Make sure that results are of the slide that an entry shows, in the frame that it shows.

    Raises:
        QprdError: the entry shows another slide now, or was turned or cropped since, so that
            results would land in the wrong place; or the slide cannot be opened.
    """
    # The resolution does not matter to who reads no pixels.
    with open_slide(entry, assume_mpp=1.0) as slide:
        require_same_slide(entry, slide_identity(entry, slide), predicted)
        if frame != slide.frame:
            raise QprdError(
                "The image was turned or cropped since it was predicted.",
                where=entry.name,
                fix="Run qprd predict again.",
            )


def _check(entry: Entry, slide: Slide) -> None:
    """Refuse a slide in which the entry's coordinates could mean other pixels.

    QuPath's readers may disagree with OpenSlide on which image of a file is the slide; they show
    the same one where its size is the one that the project records.
    """
    source = entry.source
    where = f"{entry.name} ({source.path})"
    recorded = source.file_size
    if recorded is None and not source.use_bounds and source.reader != "Openslide":
        raise QprdError(
            f"QuPath reads this image with {source.reader or 'an unnamed reader'}, and the project "
            "does not record its size, so the frame of its annotations is unknown.",
            where=where,
            fix="Open the image in QuPath and save the project.",
        )
    sizes = [
        (slide.uncropped_size, recorded),
        ((slide.width, slide.height), (source.width, source.height)),
    ]
    for found, expected in sizes:
        if expected is None or expected[0] is None or expected[1] is None:
            continue
        if max(abs(found[0] - expected[0]), abs(found[1] - expected[1])) > SIZE_TOLERANCE_PX:
            raise QprdError(
                f"The slide has {found[0]} x {found[1]} px; the project expects "
                f"{expected[0]} x {expected[1]}. It is another image, or one read otherwise.",
                where=where,
                fix="Check that the file is the one that was annotated.",
            )
    x, y, width, height = source.crop or (0, 0, 0, 0)
    ends = zip((x + width, y + height), slide.uncropped_size, strict=True)
    if any(end > side + SIZE_TOLERANCE_PX for end, side in ends):
        raise QprdError(
            "The part of the slide that the project shows reaches out of it.",
            where=where,
            fix="Check that the file is the one that was annotated, or crop it again in QuPath.",
        )
    if slide.mpp is None:
        raise QprdError(
            "The slide does not state its resolution.",
            where=entry.name,
            fix="Set the pixel size in QuPath's Image tab, or give --assume-mpp UM "
            "(0.25 for 40x, 0.5 for 20x).",
        )


def slide_mpp(slide: Slide) -> float:
    """Micrometers per level-0 pixel of a slide that `open_slide` has checked."""
    assert slide.mpp is not None
    return slide.mpp


def recorded_name(name: str) -> str:
    """An image name as bundles record it: a project may hold names of any length and form."""
    return composed(name)[:_RECORDED_NAME]


def name_list(members: Sequence[Entry | str], limit: int = 5) -> str:
    """The first image names, and dots for the rest."""
    names = [one if isinstance(one, str) else one.name for one in members[:limit]]
    return ", ".join(names) + (", ..." if len(members) > limit else "")
