"""Shares of tissue that qprd's rule keeps, and of glass and ink that it takes, beside others'.

python benchmarks/tissue.py [--data DIR] [--markdown FILE] [--images DIR] [--before FILE]
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.options import command_line
from harness.runs import versions
from harness.tables import UNDEFINED, markdown_table, publish, short
from qprd.checked import MAX_GAP_UM2, MIN_TISSUE_UM2
from qprd.slides.surface import Surface, find_surface
from tissue_rows.case import MASK_MPP, Case, Found, judge
from tissue_rows.planted import blank, borders, noise, pen, unusual
from tissue_rows.rivals import RIVALS, Rule
from tissue_rows.slides import hard_slides, paler_slides

#: Differences that are the choice of a rim's pixels, no more.
_AS_GOOD = 0.01


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", metavar="TEXT", default="", help="images with it in their name")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    parser.add_argument("--images", type=Path, metavar="DIR", help="write overlays of qprd's masks")
    parser.add_argument(
        "--before", type=Path, metavar="FILE", help="an older tissue.py, to compare with"
    )
    arguments = parser.parse_args()
    rules: dict[str, Rule] = {"qprd": qprd_rule}
    if arguments.before is not None:
        rules["before"] = _rule_of(arguments.before)
    rules |= RIVALS
    rows, worse = [], []
    started = time.perf_counter()
    for case in _cases(arguments.data.resolve()):
        if arguments.only not in case.name:
            continue
        masks = {name: rule(case.pixels) for name, rule in rules.items()}
        found = {name: judge(mask, case) for name, mask in masks.items()}
        best = max(found[name].quality for name in RIVALS)
        mark = ""
        if found["qprd"].quality < best - _AS_GOOD:
            worse.append(case.name)
            mark = " (below)"
        judged = f"{case.foreign_name}{', own color' if case.own_color else ''}{mark}"
        rows.append([case.name, judged, *(_cell(one) for one in found.values())])
        if arguments.images is not None:
            _draw(arguments.images, len(rows), case, masks["qprd"])
    print(f"took {time.perf_counter() - started:.0f} s", file=sys.stderr)
    table = markdown_table(["image", "taken is", *rules], rows)
    publish(_report(table, worse, len(rows)), arguments.markdown)


def qprd_rule(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The program's rule, with its default areas."""
    px_um2 = MASK_MPP**2
    surface, _ = find_surface(
        pixels, min_area_px=MIN_TISSUE_UM2 / px_um2, max_gap_px=MAX_GAP_UM2 / px_um2
    )
    found: NDArray[np.bool_] = surface == Surface.TISSUE
    return found


def _cases(data: Path) -> Iterator[Case]:
    yield from paler_slides(data)
    yield from hard_slides(data)
    yield from pen(data)
    yield from borders(data)
    yield from noise(data)
    yield from blank()
    yield from unusual(data)


def _rule_of(file: Path) -> Rule:
    spec = importlib.util.spec_from_file_location("tissue_before", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    px_um2 = MASK_MPP**2

    def rule(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = module.find_tissue(
            pixels, min_area_px=20_000 / px_um2, max_hole_px=10_000 / px_um2
        )
        return found

    return rule


def _cell(found: Found) -> str:
    kept = UNDEFINED if found.kept is None else short(found.kept)
    taken = UNDEFINED if found.taken is None else short(found.taken)
    return f"{kept} / {taken}"


def _draw(folder: Path, number: int, case: Case, mask: NDArray[np.bool_]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shown = case.pixels.copy()
    shown[~mask] = shown[~mask] // 2 + (0, 100, 0)
    both = np.concatenate([case.pixels, shown.astype(np.uint8)], axis=1)
    title = "".join(letter if letter.isalnum() else "_" for letter in case.name)
    Image.fromarray(both).save(folder / f"{number:03d}_{title}.png")


def _report(table: str, worse: list[str], count: int) -> str:
    found = ", ".join(f"{name} {version}" for name, version in versions().items())
    verdict = (
        f"qprd is at least as good as the best of the others on {count - len(worse)} of {count}."
    )
    if worse:
        verdict += f" Below: {'; '.join(worse)}."
    return f"{table}\n{verdict}\n\n{found}\n\n```sh\n{command_line()}\n```\n"


if __name__ == "__main__":
    main()
