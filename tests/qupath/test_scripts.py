"""How scripts get the code that they share, and the names and numbers that Python has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qprd import predictions as ours
from qprd.qupath.scripts import script_folder, update_scripts, with_parts
from qprd.settings import PredictConfig

WORDS = """/* Words of a part. */

import a.Used
import java.Unused

@Field static final String ONE = 'one'
@Field static final String TWO = 'two'

/** Says what other() says. */
String say(Map given) {
    def kept = Used.of(given)

    other(kept, ONE)
}

String unneeded() {
    TWO
}

@CompileStatic
class Kept {
    int number
}
"""
MORE = """/* More. */

String other(kept, text) {
    new Kept(number: 1)
}
"""
SCRIPT = """/*
 * A script.
 */

import b.Old
import java.util.Own

// unneeded() is only told of.
println say([:]) + Own

// ---- part words ----
stale
// ---- end of part words ----

// ---- part more ----
// ---- end of part more ----
"""
FILLED = """/*
 * A script.
 */

import a.Used

import java.util.Own

// unneeded() is only told of.
println say([:]) + Own

// ---- part words: generated from parts/words.groovy, do not edit here ----
@Field static final String ONE = 'one'

/** Says what other() says. */
String say(Map given) {
    def kept = Used.of(given)

    other(kept, ONE)
}

@CompileStatic
class Kept {
    int number
}
// ---- end of part words ----

// ---- part more: generated from parts/more.groovy, do not edit here ----
String other(kept, text) {
    new Kept(number: 1)
}
// ---- end of part more ----
"""


def test_a_script_gets_what_it_uses_of_its_parts_directly_or_through_others() -> None:
    parts = {"words": WORDS, "more": MORE}
    assert with_parts(SCRIPT, parts) == FILLED
    assert with_parts(FILLED, parts) == FILLED


def test_the_scripts_hold_their_parts_as_they_are(tmp_path: Path) -> None:
    for path in [*script_folder().glob("*.groovy"), *script_folder().glob("parts/*.groovy")]:
        copy = tmp_path / path.relative_to(script_folder())
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    assert update_scripts(tmp_path) == [], "run python -m qprd.qupath.scripts"
    part = tmp_path / "parts" / "image.groovy"
    part.write_text(part.read_text().replace("open an image", "open a picture"))
    assert len(update_scripts(tmp_path)) > 5


#: What the scripts call the names of `qprd.predictions`.
MIRRORED = {
    "OWN": ours.OWN,
    "REVIEW": ours.class_parts(ours.REVIEW_CLASS)[0],
    "OLD_TILE": ours.OLD_TILE_NAME,
    "FAULT": ours.FAULT,
    "OWN_PREFIX": ours.OWN_PREFIX,
    "OWN_SCORE": ours.SCORE,
    "OWN_PROBABILITY": ours.PROBABILITY,
    "OWN_MEAN_SCORE": ours.MEAN_SCORE,
    "OWN_MAX_SCORE": ours.MAX_SCORE,
    "OWN_MEAN_PROBABILITY": ours.MEAN_PROBABILITY,
    "OWN_AREA": ours.AREA_UM2,
    "OWN_NUMBER": ours.NUMBER,
    "OWN_RANK": ours.REVIEW_RANK,
    "OWN_SLIDE_SCORE": ours.SLIDE_SCORE,
    "OWN_SLIDE_PROBABILITY": ours.SLIDE_PROBABILITY,
    "OWN_BUNDLE": ours.BUNDLE,
    "OWN_THRESHOLD": ours.THRESHOLD,
    "OWN_PROBABILITY_THRESHOLD": ours.PROBABILITY_THRESHOLD,
    "OWN_THRESHOLD_SET_IN": ours.THRESHOLD_SET_IN,
    "CONTOUR_CLASS": ours.CONTOUR_CLASS,
    "CONTOUR_COLOR": list(ours.CONTOUR_COLOR),
    "TILE_COLOR": f"0x{ours.TILE_COLOR:08x}",
    "OWN_ID": f"0x{ours.OWN_ID[:8]}L",
}


def test_scripts_have_the_names_that_python_has() -> None:
    text = (script_folder() / "parts" / "names.groovy").read_text(encoding="utf-8")
    constants = dict(re.findall(r"^@Field static final \w+ (\w+) = (.*)$", text, re.MULTILINE))
    assert {name: value.strip("'") for name, value in constants.items()} == {
        name: str(value) for name, value in MIRRORED.items()
    }
    contours = (script_folder() / "parts" / "contours.groovy").read_text(encoding="utf-8")
    assert f"UUID.fromString('{ours._NAMESPACE}')" in contours
    usual = PredictConfig()
    area, tolerance = (f"{value:.0f}d" for value in (usual.min_area_um2, usual.tolerance_um))
    assert f"[min_area_um2: {area}, tolerance_um: {tolerance}]" in contours


@pytest.mark.parametrize("path", sorted(script_folder().glob("*.groovy")), ids=lambda it: it.stem)
def test_a_script_says_which_qupath_it_is_for_and_each_name_of_ours_once(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "0.5.1, 0.6 and 0.7" in text
    code = re.sub(r"^@Field static final .*$|^final TITLE = .*$", "", text, flags=re.MULTILINE)
    # Sentences begin with "qprd: " too.
    assert not re.search(r"'qprd: [^']*'(?! ?\+| *\))", code)
    assert not re.search(r"'qprd tile'|\"qprd: [a-z ]+\"", code)
