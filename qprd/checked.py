"""Checked types: what a value may be, shared by settings, stored records and options.

Pydantic enforces them wherever a model, or a dataclass of its, names one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

#: Configuration of records that come from files: neither unknown keys nor NaN and infinity.
STRICT: Final = ConfigDict(extra="forbid", allow_inf_nan=False)

#: Stride of the bottleneck: the edges of a patch are multiples of it.
STRIDE_PX: Final = 32
#: Largest number of validation patches of each class.
MAX_PATCHES: Final = 20_000

#: Micrometers per pixel that a microscope's image can have. Beyond lie the resolutions of screens
#: and paper: 72 dpi is 353 um per pixel.
MPP_RANGE: Final = (0.05, 20.0)

#: Pieces of tissue smaller than a square of 32 um hold no cell of the score map.
MIN_TISSUE_UM2: Final = 1000.0
#: Gaps smaller than this belong to the tissue around them: lumina, vessels, fat cells.
MAX_GAP_UM2: Final = 10_000.0

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Positive = Annotated[float, Field(gt=0)]
Mpp = Annotated[float, Field(ge=MPP_RANGE[0], le=MPP_RANGE[1])]
NotNegative = Annotated[float, Field(ge=0)]
Text = Annotated[str, Field(max_length=1000)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

_LARGEST_FLOAT32: Final = (2 - 2**-23) * 2.0**127
#: A raw score; its only bounds are those of a 32-bit float.
RawScore = Annotated[float, Field(ge=-_LARGEST_FLOAT32, le=_LARGEST_FLOAT32)]

Backend = Literal["auto", "paquo", "exchange"]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda|cuda:\d{1,3}|mps)$")]


def _whole_strides(value: int) -> int:
    if value % STRIDE_PX:
        raise PydanticCustomError(
            "multiple", f"must be a multiple of {STRIDE_PX}, the bottleneck's stride"
        )
    return value


PatchPx = Annotated[int, Field(ge=STRIDE_PX, le=4096), AfterValidator(_whole_strides)]


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else value


#: One name or several.
Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]


def _split(value: object) -> object:
    """``"3,6"`` or ``["3,6"]``, as the command line gives it, besides numbers."""
    texts = [value] if isinstance(value, str) else value
    if isinstance(texts, (list, tuple)) and all(isinstance(text, str) for text in texts):
        return tuple(",".join(texts).split(",")) if texts else ()
    return value


#: Blocks of a network, counted from 1; as stored, and as users write them.
StoredLayers = tuple[Annotated[int, Field(ge=1)], ...]
Layers = Annotated[StoredLayers, BeforeValidator(_split)]

RuleName = Literal["accuracy", "youden", "sensitivity", "fp-per-slide"]
#: How a rule is written.
RULES: Final = "accuracy, youden, sensitivity=0.95 or fp-per-slide=1, with any numbers"
_MAX_PER_SLIDE: Final = 100.0


@dataclass(frozen=True)
class Rule:
    """The operating point that a threshold is chosen for.

    ``accuracy``: the most patches labeled correctly. ``youden``: the largest sensitivity +
    specificity - 1; the same as accuracy where there are as many tumor as normal patches.
    ``sensitivity``: the highest threshold with at least this sensitivity on patches.
    ``fp-per-slide``: the lowest threshold with at most this many false-positive detections per
    slide on average.

    Attributes:
        name: The name of the rule.
        value: The sensitivity, above 0 and at most 1, or the number of false positives, 0 to 100;
            None for the other rules.
    """

    name: RuleName
    value: float | None = None

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Read a rule as users write it.

        Raises:
            ValueError: It is none of `RULES`; the message lists them.
        """
        word, has_value, number = text.strip().partition("=")
        names = {name: name for name in get_args(RuleName)}
        name = names.get(word.strip())
        if name is None or bool(has_value) != (name in {"sensitivity", "fp-per-slide"}):
            raise ValueError(f"must be {RULES}")
        if not has_value:
            return cls(name)
        try:
            value = float(number)
        except ValueError:
            raise ValueError(f"{name} needs a number: {RULES}") from None
        if name == "sensitivity" and not 0 < value <= 1:
            raise ValueError("a sensitivity is above 0 and at most 1")
        if name == "fp-per-slide" and not 0 <= value <= _MAX_PER_SLIDE:
            raise ValueError(f"false positives per slide are 0 to {_MAX_PER_SLIDE:g}")
        return cls(name, value)

    def __str__(self) -> str:
        """As users write it."""
        return self.name if self.value is None else f"{self.name}={self.value:.15g}"


def _normal_rule(value: str) -> str:
    try:
        return str(Rule.parse(value))
    except ValueError as error:
        raise PydanticCustomError("rule", "{message}", {"message": str(error)}) from error


#: A rule as text, in its normal spelling.
OperatingPoint = Annotated[str, AfterValidator(_normal_rule)]
