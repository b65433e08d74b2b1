"""Every parser of files that strangers may have written, with inputs that it reads."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fuzz_rows import written
from fuzz_rows.formats import CSV, JSON_GZ, NPZ, SAFETENSORS, TOML
from fuzz_rows.mutations import JSON, Format
from qprd.bundle.names import INFO_FILE, MODEL_FILE
from qprd.bundle.reading import _read_weights, read_bundle_info
from qprd.files.backups import undoable
from qprd.files.journal import recover
from qprd.files.layout import ProjectLayout
from qprd.given_settings import predict_config, stored_train_config, train_config
from qprd.qupath.asap import read_asap
from qprd.qupath.entry_folder import EntryFolder
from qprd.qupath.exchange import ExchangeProject
from qprd.qupath.geojson import read_annotations
from qprd.qupath.pathclasses import classes_path, read_classes
from qprd.qupath.predictions_geojson import predictions_from_geojson
from qprd.results.arrays import SCORE_MAP, load_score_map
from qprd.results.folder import (
    LESION_POINTS,
    PREDICTIONS,
    SLIDE,
    load_lesion_points,
    load_slide_result,
)
from qprd.sampling.regions import label_regions
from qprd.sampling.split_metadata import metadata_split
from qprd.sampling.table import PatchTable
from qprd.slides.remarks import overview_of, remarks
from qprd.slides.slide import Slide


@dataclass(frozen=True)
class Parser:
    """A parser, and what it is fed with.

    Attributes:
        name: What it reads.
        file: Where the input is put, in a folder of its own; other files may be beside it.
        read: Reads it; gets the folder.
        seeds: Inputs that are mutated; it reads all of them.
        tree_format: How they become trees; None mutates bytes alone.
        beside: Files that must be there, by place.
        touches: Whether reading changes the folder, which is then made anew for each input.
    """

    name: str
    file: str
    read: Callable[[Path], object]
    seeds: Sequence[bytes]
    tree_format: Format | None = JSON
    beside: Sequence[tuple[str, bytes]] = ()
    touches: bool = False


def parsers(data: Path | None = None) -> Iterator[Parser]:
    """All of them.

    Args:
        data: The folder of public and hard inputs, which join the seeds.
    """
    result = written.results()
    drawn = [written.drawn(), *_real(data, "qupath/colon/annotations/*.geojson")]
    projects = [written.project(written.SERVER), *_real(data, "qupath/foreign/*/project.qpproj")]
    project, entry = "p.qpproj", "data/1"
    bare = ((project, written.bare_project()),)
    yield Parser("GeoJSON annotations and label regions", "a.geojson", _label_regions, drawn)
    packed = [gzip.compress(drawn[0], mtime=0)]
    yield Parser("compressed GeoJSON", "a.geojson.gz", _annotations, packed, JSON_GZ)
    yield Parser("predictions", PREDICTIONS, _predictions, [result[PREDICTIONS]])
    yield Parser("ASAP's XML", "a.xml", _asap("a.xml"), [written.ASAP], None)
    yield Parser("Camelyon16's JSON", "a.json", _asap("a.json"), [written.CAMELYON])
    yield Parser("project file", project, _entries, projects)
    server = JSON.encode(written.SERVER["builder"]["builder"])
    yield Parser("server.json", f"{entry}/server.json", _entries, [server], beside=bare)
    yield Parser("summary.json", f"{entry}/summary.json", _summary, [written.SUMMARY])
    classes = str(classes_path(Path(project)))
    yield Parser("classes.json", classes, _classes, [written.CLASSES])
    yield Parser("settings in TOML", "a.toml", _settings, [written.SETTINGS], TOML)
    yield Parser("bundle.json", INFO_FILE, _bundle, [written.bundle_json()])
    yield Parser("weights", MODEL_FILE, _weights, [written.tensors()], SAFETENSORS)
    yield Parser("score map", SCORE_MAP, load_score_map, [result[SCORE_MAP]], NPZ)
    yield Parser("slide.json", SLIDE, load_slide_result, [result[SLIDE]])
    yield Parser("lesion points", LESION_POINTS, load_lesion_points, [result[LESION_POINTS]], CSV)
    yield Parser("patch table", "a.csv", _patches, [written.PATCHES], CSV)
    manifest = [written.manifest()]
    step = "qprd/backups/2026-01-01T00-00-00.000000Z/0001"
    # What was replaced is as it was meant, so that the journal can be closed.
    replaced = (("qprd/predictions/1.geojson", b""), (f"{step}/a", b""))
    journal = "qprd/journal.json"
    yield Parser("journal", journal, _journal, manifest, beside=replaced, touches=True)
    backup = f"{step}/manifest.json"
    yield Parser("manifest of a backup", backup, _backups, manifest, beside=bare)
    yield Parser("TIFF slide", "a.tif", _slide, [written.slide()], None)


def _real(data: Path | None, pattern: str) -> list[bytes]:
    """The smaller of some files: of large ones, most mutations hit the same list of numbers."""
    files = [] if data is None else sorted(data.glob(pattern))
    return [file.read_bytes() for file in files if file.stat().st_size < 4000]


def _annotations(folder: Path) -> object:
    return read_annotations(folder / "a.geojson.gz")


def _label_regions(folder: Path) -> object:
    return label_regions(read_annotations(folder / "a.geojson"), 4000, 4000, mpp=0.5)


def _predictions(folder: Path) -> object:
    return predictions_from_geojson(folder / PREDICTIONS)


def _asap(name: str) -> Callable[[Path], object]:
    return lambda folder: read_asap(folder / name)


def _entries(folder: Path) -> object:
    with ExchangeProject(folder / "p.qpproj") as project:
        entries = project.entries()
        return [metadata_split(entry.metadata, entry.name) for entry in entries]


def _summary(folder: Path) -> object:
    entry = EntryFolder.of(folder / "p.qpproj", "1")
    return entry.recorded_objects(), entry.recorded_annotations(), entry.recorded_classes()


def _classes(folder: Path) -> object:
    return read_classes(folder / "p.qpproj")


def _settings(folder: Path) -> object:
    return train_config({}, folder / "a.toml"), predict_config({}, folder / "a.toml")


def _bundle(folder: Path) -> object:
    info = read_bundle_info(folder)
    return stored_train_config(info.training.config, info.name)


def _weights(folder: Path) -> object:
    return _read_weights(folder / MODEL_FILE, written.TENSORS)


def _patches(folder: Path) -> object:
    return PatchTable.from_csv(folder / "a.csv")


def _journal(folder: Path) -> object:
    return recover(ProjectLayout(folder / "p.qpproj").project)


def _backups(folder: Path) -> object:
    return undoable(folder / "p.qpproj")


def _slide(folder: Path) -> object:
    with Slide(folder / "a.tif", default_mpp=0.5) as slide:
        return remarks(slide, overview_of(slide), patch_um=8, mpp=0.5)
