"""The cost of many slides beside their pixels, in time and memory: N entries, and five times N.

    python benchmarks/scale.py [--entries 1000] [--only ROW ...] [--json FILE] [--markdown FILE]

Each measurement is a process of its own. Writing back is measured where a QuPath is found.
"""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from harness.command import run_command
from harness.options import command_line
from harness.runs import processor, versions
from harness.tables import markdown_table, publish
from qprd.bundle.reading import newest_bundle, read_bundle_info
from qprd.cores import cores
from qprd.demo.creation import NewSlide, create_project
from qprd.files.layout import ProjectLayout
from qprd.given_settings import predict_config, train_config
from qprd.jobs.doctor.job import doctor
from qprd.jobs.predict.index import write_results_index
from qprd.jobs.predict.inputs import Inputs
from qprd.jobs.predict.job import predict_project
from qprd.jobs.reporting import write_json_object
from qprd.jobs.status import status
from qprd.jobs.train.patches import prepare_patches
from qprd.jobs.write_back import write_back_entries
from qprd.progress import SilentProgress
from qprd.qupath.entry_slides import open_slide
from qprd.qupath.image_annotations import read_image_annotations
from qprd.qupath.java import find_qupath
from qprd.qupath.opening import open_project
from qprd.results.folder import SLIDE, load_slide_result
from qprd.slides.fingerprint import SlideIdentity, fingerprint
from speed_rows.row import Row
from speed_rows.slides import write_slide
from speed_rows.whole_prediction import peak_bytes, prepare_model

_EDGE_PX, _GLASS_PX, _MPP = 256, 32, 0.5
_SLIDE_PX = _EDGE_PX + 2 * _GLASS_PX
_TIMES = 5
_HEAD = ("what", "against", "ratio", "target", "kept", "detail")
#: Of times, for what is linear; of memory.
_LINEAR, _BOUNDED = 1.1 * _TIMES, 1.5
#: Vertices of the outline of each class on a slide; and where memory is measured, of fewer slides.
_OUTLINE, _LONG_OUTLINE, _FEWER = 200, 10_000, 5
_ABOUT = f"""\
The slides have {_SLIDE_PX} x {_SLIDE_PX} px, and two outlines of \
{_OUTLINE} vertices each, so that nearly all of the time is spent on the project; those that are \
sampled have {_LONG_OUTLINE:,} vertices an outline. Targets in seconds, for 1,000 and 5,000 \
entries on two idle cores, are compared with the clock; growth is compared in seconds of the \
processors, which hardly depend on what else the computer does.
"""
_PREDICTION = {"device": "cpu", "precision": "32"}
#: Slides that are written back.
_WRITTEN = 20


@dataclass(frozen=True)
class Spent:
    """Seconds of a measurement, by the clock and of its processors, and its peak memory."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s ({self.cpu_seconds:.2f} s of the processors)"

    def beside(self, other: Spent) -> Spent:
        """What was spent beside what something else takes."""
        seconds, cpu_seconds = self.seconds - other.seconds, self.cpu_seconds - other.cpu_seconds
        return Spent(seconds, cpu_seconds, self.peak_bytes)

    def each_of(self, count: int) -> Spent:
        """What was spent on each of so many."""
        return Spent(self.seconds / count, self.cpu_seconds / count, self.peak_bytes)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entries", type=int, default=1000, metavar="N")
    parser.add_argument("--only", action="append", choices=_ROWS, help="repeatable")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    rows: list[Row] = []
    names = arguments.only or _ROWS
    with tempfile.TemporaryDirectory(prefix="qprd-scale-") as temporary:
        if set(names) != {_SAMPLING}:
            sizes = (1, arguments.entries, _TIMES * arguments.entries)
            folders = [make_project(Path(temporary, str(size)), size) for size in sizes]
        for name in names:
            if name == _SAMPLING:
                found = _sampling_rows(Path(temporary), arguments.entries // _FEWER)
            elif name == _WRITING:
                found = _writing_rows(folders[1:], sizes[1:])
            else:
                found = _rows(name, folders, sizes)
            for row in found:
                rows.append(row)
                print(": ".join(row.cells()[:3:2]), row.detail, sep="; ", file=sys.stderr)
    write_json_object(arguments.json, [row.as_json() for row in rows])
    table = markdown_table(_HEAD, [row.cells() for row in rows])
    installed = ", ".join(f"{name} {version}" for name, version in versions().items())
    where = f"{processor()}, {cores()} cores; {installed}"
    publish(f"{_ABOUT}\n{table}\n{where}\n\n```sh\n{command_line()}\n```\n", arguments.markdown)


def make_project(folder: Path, entries: int, vertices: int = _OUTLINE) -> Path:
    """Make a project of small slides, all annotated and, but for the pixels, all predicted.

    The slides are copies of one to which bytes are added, more to each, so that none is a copy. The
    bundle says that it was trained on all of them.
    """
    slides = folder / "slides"
    slides.mkdir(parents=True)
    pixels = folder / "pixels.tif"
    size = (_SLIDE_PX, _SLIDE_PX)
    write_slide(pixels, size, [(_GLASS_PX, _GLASS_PX, _EDGE_PX)], _MPP)
    content, drawn = pixels.read_bytes(), _annotations(vertices)
    new = []
    for number in range(entries):
        path = slides / f"slide_{number}.tif"
        path.write_bytes(content + b"." * number)
        new.append(NewSlide(path, _MPP, annotations=drawn))
    project = create_project(folder, new)
    if vertices == _OUTLINE:
        exported = folder / "exported"
        shutil.copytree(ProjectLayout(project).annotations, exported)
        for number in range(entries):
            file = exported / f"{number + 1}.geojson"
            file.rename(file.with_name(f"slide_{number}.tif.geojson"))
        known = tuple(SlideIdentity(one.path.name, fingerprint(one.path)) for one in new)
        prepare_model(project, _MPP, slides=known)
        _predict_one(folder)
        _copy_results(project, known)
    return folder


def _annotations(vertices: int) -> dict[str, object]:
    """Tumor on the left, normal tissue on the right, with outlines of many vertices."""
    side = [_GLASS_PX + _EDGE_PX * step / vertices for step in range(0, vertices, 2)]
    features = []
    for name, left in (("Tumor", _GLASS_PX), ("Normal", _GLASS_PX + _EDGE_PX // 2)):
        right = left + _EDGE_PX // 2
        ring = [[left, y] for y in side] + [[right, y] for y in side[::-1]]
        features.append(
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
                "properties": {"objectType": "annotation", "classification": {"name": name}},
            }
        )
    return {"type": "FeatureCollection", "features": features}


def _copy_results(project: Path, slides: Sequence[SlideIdentity]) -> None:
    """Give each slide the results of the first, as if they were its own."""
    layout = ProjectLayout(project)
    first = layout.result("1")
    result = asdict(load_slide_result(first))
    bundle = newest_bundle(layout.bundles)
    inputs = Inputs(bundle, read_bundle_info(bundle), predict_config(_PREDICTION))
    opened, _ = open_project(project, backend="exchange")
    with opened:
        for entry, known in zip(opened.entries()[1:], slides[1:], strict=True):
            folder = shutil.copytree(first, layout.result(entry.id))
            with open_slide(entry) as slide:
                made_from = inputs.made_from(slide, (), entry)
            own = {
                "entry_id": entry.id,
                "image": known.name,
                "fingerprint": known.fingerprint,
                "made_from": asdict(made_from),
            }
            (folder / SLIDE).write_text(json.dumps(result | own), encoding="utf-8")


def _list_annotations(folder: Path) -> None:
    opened, _ = open_project(
        folder / "project.qpproj", backend="exchange", annotations=folder / "exported"
    )
    with opened:
        read_image_annotations(opened, opened.entries())


def _write_index(folder: Path) -> None:
    layout = ProjectLayout(folder / "project.qpproj")
    info = read_bundle_info(newest_bundle(layout.bundles))
    write_results_index(layout, info, threshold=None)


def _examine(folder: Path) -> None:
    assert not doctor(folder, backend="exchange", progress=False).failed


def _look_at_status(folder: Path) -> None:
    opened, _ = open_project(folder / "project.qpproj", backend="exchange")
    with opened:
        status(opened, progress=False)


def _predict_one(folder: Path, *, force: bool = True) -> None:
    opened, _ = open_project(folder / "project.qpproj", backend="exchange")
    with opened:
        config = predict_config({**_PREDICTION, "images": ("slide_0.tif",)})
        predict_project(opened, config, force=force, progress=SilentProgress())


def _predict_none(folder: Path) -> None:
    _predict_one(folder, force=False)


def _open_in_qupath(folder: Path) -> None:
    _write_back(folder, 0)


def _write_back_some(folder: Path) -> None:
    _write_back(folder, _WRITTEN)


def _write_back(folder: Path, count: int) -> None:
    opened, _ = open_project(folder / "project.qpproj", backend="paquo")
    with opened:
        entries = opened.entries()[:count]
        written = write_back_entries(opened, entries, progress=SilentProgress())
    assert len(written.written) == count


def _sample(folder: Path, *, wanted: int) -> None:
    opened, _ = open_project(folder / "project.qpproj", backend="exchange")
    with opened:
        config = train_config(
            {"teacher": "efficientnet_lite0", "patch_px": 32, "normal": wanted, "tumor": wanted}
        )
        prepare_patches(opened, config, None, SilentProgress())


#: What is measured; seconds that it may take at 1,000 and at 5,000 entries; and whether what it
#: takes with one entry is subtracted.
_WAYS: dict[str, tuple[Callable[[Path], None], tuple[float, float], bool]] = {
    "listing with --annotations": (_list_annotations, (1.0, 5.0), False),
    "index of the results": (_write_index, (1.0, 5.0), False),
    "doctor": (_examine, (3.0, 15.0), False),
    "status": (_look_at_status, (3.0, 15.0), False),
    "predict --image ONE, beside its slide": (_predict_one, (3.0, 3.0), True),
    "predict --image ONE that is up to date": (_predict_none, (3.0, 3.0), True),
}
_SAMPLING, _WRITING = "sampling for a training", "writing back with QuPath"
_ROWS = (*_WAYS, _WRITING, _SAMPLING)


def _rows(name: str, folders: list[Path], sizes: tuple[int, int, int]) -> Iterator[Row]:
    way, limits, only_beside = _WAYS[name]
    one, *spent = (_spent(way, folder) for folder in folders)
    if only_beside:
        spent = [found.beside(one) for found in spent]
    else:
        yield _growth(name, sizes[1:], spent)
    for size, found, limit in zip(sizes[1:], spent, limits, strict=True):
        shown = f"{size:,} entries: {found}"
        yield Row(name, f"{limit:g} s", "<=", 1.0, found.seconds / limit, shown)


def _writing_rows(folders: Sequence[Path], sizes: Sequence[int]) -> Iterator[Row]:
    if find_qupath() is None:
        yield Row(_WRITING, f"{sizes[0]:,} entries", "<=", _LINEAR, None, "there is no QuPath")
        return
    slides = [
        _spent(_write_back_some, folder).beside(_spent(_open_in_qupath, folder)).each_of(_WRITTEN)
        for folder in folders
    ]
    yield _growth(f"{_WRITING}, a slide", sizes, slides)


def _sampling_rows(temporary: Path, entries: int) -> Iterator[Row]:
    sizes = (entries, _TIMES * entries)
    folders = [make_project(temporary / f"long {size}", size, _LONG_OUTLINE) for size in sizes]
    # Most slides are for training, and each has room for several patches.
    spent = [_spent(partial(_sample, wanted=entries), folder) for folder in folders]
    name = f"{_SAMPLING}, {2 * _LONG_OUTLINE:,} vertices a slide"
    yield _growth(name, sizes, spent)
    peaks = [found.peak_bytes / 2**20 for found in spent]
    yield Row(
        f"{name}: memory",
        f"{sizes[0]:,} entries",
        "<=",
        _BOUNDED,
        peaks[1] / peaks[0],
        f"peaks of {peaks[0]:.0f} and {peaks[1]:.0f} MiB, the libraries' own included",
    )


def _growth(name: str, sizes: Sequence[int], spent: Sequence[Spent]) -> Row:
    detail = ", ".join(
        f"{size:,} entries: {found}" for size, found in zip(sizes, spent, strict=True)
    )
    ratio = spent[1].cpu_seconds / max(spent[0].cpu_seconds, 1e-3)
    return Row(name, f"{sizes[0]:,} entries", "<=", _LINEAR, ratio, detail)


def _spent(way: Callable[[Path], None], folder: Path) -> Spent:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measured, way, folder).result()


def _measured(way: Callable[[Path], None], folder: Path) -> Spent:
    # What was imported is the same in any project; the collector need not go through it.
    gc.freeze()
    started, cpu_started = time.perf_counter(), time.process_time()
    way(folder)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    return Spent(seconds, cpu_seconds, peak_bytes())


if __name__ == "__main__":
    run_command(main)
