"""Mutations of inputs: of their bytes, and of the tree of values that they encode."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

#: What a value is replaced by: of other types, at the ends of ranges, deep, hostile.
VALUES: Sequence[Any] = (
    *(None, True, False, 0, -1, 1, 0.5, -0.0, 1e-300, 1e300, -1e308),
    *(2**31, 2**53, 2**63, 2**64, 10**400, float("nan"), float("inf"), float("-inf")),
    *("", " ", "0", "-1", "nan", "1e999", "9" * 5000, "\0", "a\0b", "\ud800", "e\u0301"),
    *("../../etc/passwd", "/", "C:\\", "\n", "\u202e", "a" * 3000, "*", ":", "Tumor: qprd"),
    *([], {}, [[]], [None], {"": None}, [0] * 300, [[[0, 0], [1, 1], [0, 0]]]),
)

#: Bytes that are put between others.
TOKENS: Sequence[bytes] = (
    *(b"\0", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\x7f\xff\xff\xff", b"\xff" * 4),
    *(b"\r", b"\n", b'"', b"'", b"{", b"}", b"[", b"]", b",", b":", b"=", b"#", b"%", b"%00"),
    *(b"-", b"e9", b"1e999", b"NaN", b"Infinity", b"null", b"9" * 5000, b"\\ud800", b"\\u0000"),
    *(b"<", b">", b"&", b"&x;", b"<!DOCTYPE a [<!ENTITY x 'y'>]>", b"]]>", b"<a>" * 2000),
    *(b"[" * 2000, b'{"a":' * 2000),
)


@dataclass(frozen=True)
class Format:
    """How an input becomes a tree of lists, dicts and values, and a tree an input."""

    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]


def _json_bytes(tree: Any) -> bytes:
    # Half a surrogate pair is written as an escape.
    return json.dumps(tree).encode()


JSON = Format(json.loads, _json_bytes)


def mutated(seeds: Sequence[bytes], tree_format: Format | None, random: Random) -> bytes:
    """One of the seeds with one to four mutations, of its tree or of its bytes."""
    data = random.choice(seeds)
    if tree_format is not None and random.random() < 0.6:
        tree = tree_format.decode(data)
        for _ in range(random.choice((1, 1, 2, 3))):
            tree = _mutated_tree(tree, random)
        data = tree_format.encode(tree)
        if random.random() < 0.8:
            return data
    for _ in range(random.choice((1, 1, 2, 4))):
        data = _mutated_bytes(data, seeds, random)
    return data


def _mutated_tree(tree: Any, random: Random) -> Any:
    """Change a tree: one node is replaced, removed, copied, moved or wrapped."""
    places = _places(tree)
    if not places:
        return random.choice(VALUES)
    parent, key = random.choice(places)
    other = random.choice(places)
    match random.randrange(7):
        case 0 | 1:
            parent[key] = copy.deepcopy(random.choice(VALUES))
        case 2:
            parent[key] = _near(parent[key], random)
        case 3:
            del parent[key]
        case 4:
            parent[key] = copy.deepcopy(other[0][other[1]])
        case 5:
            for _ in range(random.choice((1, 3, 70))):
                parent[key] = [parent[key]] if random.random() < 0.5 else {"a": parent[key]}
        case 6 if isinstance(parent, dict):
            parent[random.choice(("", "type", "id", "a" * 300, "\0"))] = parent.pop(key)
        case _:
            parent.insert(key, copy.deepcopy(parent[key])) if isinstance(parent, list) else None
    return tree


def _near(value: Any, random: Random) -> Any:
    """A value of the same type that is a little different."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float) and abs(value) < 1e300:
        return random.choice((-value, value + 1, value * 1000, value / 3, value * 1e200))
    if isinstance(value, str):
        place = random.randint(0, len(value))
        return value[:place] + random.choice(("", "\0", "é", "..", "/", " ")) + value[place + 1 :]
    return list(value) if isinstance(value, dict) else value


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Each container of a tree with each of its keys."""
    if isinstance(tree, dict):
        keys: Sequence[Any] = list(tree)
    elif isinstance(tree, list):
        keys = range(len(tree))
    else:
        return []
    return [place for key in keys for place in ((tree, key), *_places(tree[key]))]


def _mutated_bytes(data: bytes, seeds: Sequence[bytes], random: Random) -> bytes:
    """Bytes with some of them changed, removed, copied, inserted, cut off, or of another seed."""
    first = random.randint(0, len(data))
    last = min(len(data), first + random.choice((0, 1, 2, 4, 16, 64)))
    before, between, after = data[:first], data[first:last], data[last:]
    flipped = bytes(byte ^ (1 << random.randrange(8)) for byte in between[:1]) + between[1:]
    repeated = between * random.choice((2, 3, 50))
    noise = random.randbytes(random.choice((1, 2, 4, 8)))
    middle = random.choice((flipped, b"", repeated, random.choice(TOKENS), noise))
    other = random.choice(seeds)
    ends = (after, after, after, after, b"", other[random.randint(0, len(other)) :])
    return before + middle + random.choice(ends)
