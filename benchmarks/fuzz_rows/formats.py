"""Formats of inputs beside JSON: tables, settings, archives of arrays, tensors, compressed text."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
from typing import Any

from fuzz_rows.mutations import JSON, Format


def _csv_tree(data: bytes) -> list[list[str]]:
    return [line.split(",") for line in data.decode().splitlines()]


def _csv_bytes(tree: Any) -> bytes:
    rows = tree if isinstance(tree, list) else [tree]
    lines = (",".join(map(str, row)) if isinstance(row, list) else str(row) for row in rows)
    return "\n".join(lines).encode(errors="surrogatepass")


def _toml_tree(data: bytes) -> list[list[Any]]:
    tree = []
    for line in data.decode().splitlines():
        key, is_setting, value = line.partition(" = ")
        tree.append([key, json.loads(value)] if is_setting else [key])
    return tree


def _toml_bytes(tree: Any) -> bytes:
    lines = []
    for line in tree if isinstance(tree, list) else [tree]:
        members = line if isinstance(line, list) else [line]
        values = [json.dumps(value).replace("NaN", "nan") for value in members[1:]]
        lines.append(" = ".join([*map(str, members[:1]), *values]))
    return "\n".join(lines).encode(errors="surrogatepass")


def _zip_tree(data: bytes) -> dict[str, list[Any]]:
    """Of each array its header, split at commas, and its bytes as text."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    tree = {}
    for name, content in members.items():
        size = 10 + struct.unpack("<H", content[8:10])[0]
        header, values = content[10:size].decode(), content[size:].decode("latin1")
        tree[name] = [content[:8].decode("latin1"), header.strip().split(","), values]
    return tree


def _zip_bytes(tree: Any) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, member in tree.items() if isinstance(tree, dict) else ():
            parts = member if isinstance(member, list) else []
            magic, header, values = (*parts, "", "", "")[:3]
            text = ",".join(map(str, header)) if isinstance(header, list) else str(header)
            written = text.encode(errors="replace")[:60_000] + b"\n"
            content = str(magic).encode("latin1", "replace") + struct.pack("<H", len(written))
            content += written + str(values).encode("latin1", "replace")
            place = str(name).replace("\0", "").encode(errors="replace").decode()
            archive.writestr(f"{place[:1000].removesuffix('.npy')}.npy", content)
    return buffer.getvalue()


def _tensors_tree(data: bytes) -> list[Any]:
    size = struct.unpack("<Q", data[:8])[0]
    return [json.loads(data[8 : 8 + size]), data[8 + size :].decode("latin1")]


def _tensors_bytes(tree: Any) -> bytes:
    header, values = (*tree, "", "")[:2] if isinstance(tree, list) else (tree, "")
    written = json.dumps(header).encode()
    return struct.pack("<Q", len(written)) + written + str(values).encode("latin1", "replace")


CSV = Format(_csv_tree, _csv_bytes)
#: Settings by line; values as in JSON.
TOML = Format(_toml_tree, _toml_bytes)
#: NumPy's archives.
NPZ = Format(_zip_tree, _zip_bytes)
SAFETENSORS = Format(_tensors_tree, _tensors_bytes)
JSON_GZ = Format(
    lambda data: JSON.decode(gzip.decompress(data)),
    lambda tree: gzip.compress(JSON.encode(tree), compresslevel=1, mtime=0),
)
