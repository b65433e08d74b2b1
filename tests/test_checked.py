from __future__ import annotations

import pytest

from qprd.checked import Rule


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("accuracy", Rule("accuracy")),
        (" youden ", Rule("youden")),
        ("sensitivity=0.95", Rule("sensitivity", 0.95)),
        ("sensitivity = 1", Rule("sensitivity", 1.0)),
        ("fp-per-slide=0", Rule("fp-per-slide", 0.0)),
        ("fp-per-slide=2.5", Rule("fp-per-slide", 2.5)),
    ],
)
def test_rules_are_read_and_written(text: str, rule: Rule) -> None:
    assert Rule.parse(text) == rule
    assert Rule.parse(str(rule)) == rule


@pytest.mark.parametrize(
    "text",
    [
        "",
        "specificity=0.9",
        "accuracy=1",
        "youden=",
        "sensitivity",
        "sensitivity=",
        "sensitivity=high",
        "sensitivity=0",
        "sensitivity=1.01",
        "sensitivity=nan",
        "fp-per-slide=-1",
        "fp-per-slide=inf",
        "fp-per-slide=1e9",
    ],
)
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be|needs a number|sensitivity is|false pos"):
        Rule.parse(text)
