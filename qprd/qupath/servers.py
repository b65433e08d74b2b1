"""Image servers, as a project file records where the pixels of an image come from.

The field names are those of QuPath's ``ImageServers`` (0.2 to 0.7).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeGuard

from qprd.files.jsonfile import well_formed
from qprd.qupath.project import SlideSource
from qprd.slides.frame import Frame, Rotation
from qprd.slides.slide import MOST_ANISOTROPIC

_MAX_NESTED_SERVERS = 32

_ROTATIONS: Mapping[str, Rotation] = {
    "ROTATE_NONE": 0,
    "ROTATE_90": 90,
    "ROTATE_180": 180,
    "ROTATE_270": 270,
}
_ROTATIONS_BY_ANGLE: Mapping[int, Rotation] = {0: 0, 90: 90, 180: 180, 270: 270}

#: ``builderType`` of servers that show a part of one file, or all of it. ``pyramidize`` adds only
#: coarser levels to an image without any; QuPath's import does so by default.
_SUPPORTED_SERVERS = ("uri", "rotated", "cropped", "pyramidize")

#: ``builderType`` of servers whose pixels or frame are not those of one file.
_UNSUPPORTED_SERVERS = {
    "affine": "it is transformed (affine)",
    "channels": "its channels come from several images",
    "color": "its channels are computed",
    "color_deconvolved": "it shows separated stains",
    "flipped": "it is flipped",
    "normalized": "its colors are normalized",
    "sliced": "it is part of a stack",
    "sparse": "it is put together from several images",
    "swapRedBlue": "its colors are reordered",
    "typeConvert": "its pixel type is converted",
    "z_concatenated": "it is stacked from several images",
    "z_projected": "it is projected from a stack",
}

#: Sides of images are shorter than this many pixels, as QuPath's are.
_MAX_PX = 2**31

#: x, y, width, height.
Rectangle = tuple[int, int, int, int]


@dataclass(frozen=True)
class _Layer:
    """One server of a nest, of a kind in `_SUPPORTED_SERVERS`, with its own metadata."""

    kind: str
    metadata: Mapping[str, object]
    builder: Mapping[str, object]

    @property
    def size(self) -> tuple[int, int] | None:
        width, height = self.metadata.get("width"), self.metadata.get("height")
        if _is_whole(width) and _is_whole(height) and min(width, height) > 0:
            return (width, height) if max(width, height) < _MAX_PX else None
        return None


class _UnsupportedServerError(ValueError):
    """Carries the reason."""


def parse_server(builder: object) -> SlideSource:
    """Parse the ``serverBuilder`` of an image; never raises, see `SlideSource.unsupported`."""
    try:
        layers = _layers(builder)
    except _UnsupportedServerError as reason:
        return SlideSource(uri=_any_uri(builder), path=None, unsupported=str(reason))
    file = layers[-1]
    uri = file.builder.get("uri")
    provider = file.builder.get("providerClassName")
    name = provider.rpartition(".")[2] if isinstance(provider, str) else ""
    reader = name.removesuffix("ServerBuilder")
    args = file.builder.get("args") or []
    known = next((layer for layer in layers if layer.metadata), file)
    width, height = layers[0].size or (None, None)
    source = SlideSource(
        uri=well_formed(uri) if isinstance(uri, str) else "",
        path=None,
        reader=reader,
        use_bounds=reader == "Openslide" and args == [],
        file_size=_file_size(layers),
        width=width,
        height=height,
    )
    try:
        source = replace(source, mpp=_mpp(known.metadata))
        _check_args(reader, args)
        for layer in layers:
            _check_pixels(layer.metadata)
        return _with_frame(source, layers)
    except _UnsupportedServerError as reason:
        return replace(source, unsupported=str(reason))


def _layers(builder: object) -> list[_Layer]:
    """The nested servers, outermost first."""
    layers: list[_Layer] = []
    while len(layers) < _MAX_NESTED_SERVERS:
        if not isinstance(builder, dict):
            raise _UnsupportedServerError("the project does not say where its pixels come from")
        kind = _builder_type(builder)
        if kind in _UNSUPPORTED_SERVERS:
            raise _UnsupportedServerError(_UNSUPPORTED_SERVERS[kind])
        if kind not in _SUPPORTED_SERVERS:
            raise _UnsupportedServerError(f"qprd does not know its kind of image server ({kind})")
        metadata = builder.get("metadata")
        layers.append(_Layer(kind, metadata if isinstance(metadata, dict) else {}, builder))
        if kind == "uri":
            return layers
        builder = builder.get("builder")
    raise _UnsupportedServerError("its image servers are nested too deeply")


def _file_size(layers: Sequence[_Layer]) -> tuple[int, int] | None:
    """Size of the file's frame, recorded with the file or with a pyramid made directly of it."""
    for layer in reversed(layers):
        if layer.kind not in ("uri", "pyramidize"):
            break
        if layer.size is not None:
            return layer.size
    return None


def _builder_type(builder: Mapping[str, object]) -> str:
    kind = builder.get("builderType")
    if isinstance(kind, str):
        return kind
    # server.json before QuPath 0.5 has no types.
    for member, implied in (("rotation", "rotated"), ("region", "cropped"), ("uri", "uri")):
        if member in builder:
            return implied
    return "none"


def _any_uri(builder: object) -> str:
    """The first URI in nested servers that are not understood, for the message to the user."""
    for _ in range(_MAX_NESTED_SERVERS):
        if not isinstance(builder, dict):
            break
        if isinstance(builder.get("uri"), str):
            return well_formed(str(builder["uri"]))
        builder = builder.get("builder")
    return ""


def _check_args(reader: str, args: object) -> None:
    """Refuse reader arguments that choose other pixels than the file's first image."""
    if not isinstance(args, list) or not all(isinstance(arg, str) for arg in args):
        raise _UnsupportedServerError("its reader's arguments are not understood")
    rest = [part for arg in args for part in arg.split("=", 1)]
    while rest:
        option = rest.pop(0)
        if option in ("--series", "-s"):
            series = rest.pop(0) if rest else ""
            if series not in ("0", "-1"):
                raise _UnsupportedServerError(f"it is series {series} of its file, not the first")
        elif not (option == "--no-crop" and reader == "Openslide"):
            raise _UnsupportedServerError(f"it is read with {' '.join(args)}")


def _check_pixels(metadata: Mapping[str, object]) -> None:
    """Refuse what is no single-plane 8-bit RGB image; what is not recorded passes."""
    if metadata.get("isRGB") is False or metadata.get("pixelType", "UINT8") != "UINT8":
        channels = metadata.get("channels")
        count = f"{len(channels)} channels, " if isinstance(channels, list) else ""
        raise _UnsupportedServerError(f"it is not RGB ({count}{metadata.get('pixelType')})")
    if metadata.get("sizeZ", 1) != 1 or metadata.get("sizeT", 1) != 1:
        raise _UnsupportedServerError("it is a stack of several planes or time points")


def _with_frame(source: SlideSource, layers: list[_Layer]) -> SlideSource:
    """Follow rotations and crops from the file outwards."""
    rotation: Rotation = 0
    crop: Rectangle | None = None
    size = source.file_size
    for layer in reversed(layers[:-1]):
        if layer.kind == "rotated":
            turn = _ROTATIONS.get(str(layer.builder.get("rotation")))
            if turn is None:
                raise _UnsupportedServerError("its rotation is not understood")
            rotation = _ROTATIONS_BY_ANGLE[(rotation + turn) % 360]
            if size is not None and turn in (90, 270):
                size = size[1], size[0]
        elif layer.kind == "cropped":
            region = _rectangle(layer.builder.get("region"))
            crop = _crop_in_file(region, size, rotation, crop)
            size = region[2], region[3]
        if size is not None and layer.size is not None and size != layer.size:
            raise _UnsupportedServerError("the project records sizes for it that do not agree")
        size = size or layer.size
    width, height = size or (None, None)
    return replace(source, width=width, height=height, rotation=rotation, crop=crop)


def _rectangle(region: object) -> Rectangle:
    found = region if isinstance(region, dict) else {}
    x, y, width, height = (found.get(key) for key in ("x", "y", "width", "height"))
    is_flat = (found.get("z", 0), found.get("t", 0)) == (0, 0)
    if not (is_flat and _is_whole(x) and _is_whole(y) and _is_whole(width) and _is_whole(height)):
        raise _UnsupportedServerError("its crop is not understood")
    if min(x, y) < 0 or min(width, height) <= 0 or max(x, y, width, height) >= _MAX_PX:
        raise _UnsupportedServerError("its crop reaches out of the image")
    return x, y, width, height


def _crop_in_file(
    region: Rectangle, size: tuple[int, int] | None, rotation: Rotation, inner: Rectangle | None
) -> Rectangle:
    """A crop of the rotated frame of the given size, in the unrotated file frame."""
    x, y, width, height = region
    if size is not None and (x + width > size[0] or y + height > size[1]):
        raise _UnsupportedServerError("its crop reaches out of the image")
    if rotation != 0:
        if size is None:
            raise _UnsupportedServerError("it is cropped after a rotation, its size not recorded")
        file_size = size[::-1] if rotation in (90, 270) else size
        in_file = Frame(0, 0, *file_size, rotation).to_file(x, y, width, height)
        x, y, width, height = map(int, in_file)
    if inner is not None:
        x, y = x + inner[0], y + inner[1]
    return x, y, width, height


def _mpp(metadata: Mapping[str, object]) -> float | None:
    """Mean pixel size in micrometers; None unless both sides are calibrated.

    Raises:
        _UnsupportedServerError: the pixels are not square.
    """
    calibration = metadata.get("pixelCalibration")
    sides: list[float] = []
    for key in ("pixelWidth", "pixelHeight"):
        side = calibration.get(key) if isinstance(calibration, dict) else None
        if not isinstance(side, dict) or side.get("unit") not in ("\u00b5m", "\u03bcm", "um"):
            return None
        value = side.get("value")
        if not isinstance(value, int | float) or isinstance(value, bool):
            return None
        if not 0 < value < 1e6 or not math.isfinite(value):
            return None
        sides.append(float(value))
    if max(sides) > MOST_ANISOTROPIC * min(sides):
        raise _UnsupportedServerError(f"its pixels are not square ({sides[0]:g} x {sides[1]:g} um)")
    return sum(sides) / 2


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
