"""How scripts get the code that they share."""

from __future__ import annotations

from pathlib import Path

from qprd.qupath.scripts import script_folder, update_scripts, with_parts

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
