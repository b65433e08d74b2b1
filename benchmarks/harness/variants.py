"""Methods with their settings, by name, to be compared."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

from harness.runs import Variant
from methods.interface import MethodOptions
from qprd.errors import ExitCode, QprdError


def variants(options: MethodOptions) -> dict[str, Variant]:
    """What can be compared, by name.

    ``best-own-stain``, ``best-hed`` and ``best-standardized`` differ from ``best`` in what they do
    about other stains, see `methods.interface.MethodOptions`. Networks other than
    efficientnet_lite0 start from random weights in ``-random``, else from torchvision's, which are
    downloaded.
    """
    mean = replace(options, memory_score="mean")
    found = [
        Variant("best", "frd", "best", options),
        Variant("best-own-stain", "frd", "best", replace(options, stains="none")),
        Variant("best-hed", "frd", "best", replace(options, stains="hed")),
        Variant("best-standardized", "frd", "best", replace(options, standardized=True)),
        Variant("frd-paper", "frd", "paper", options),
        Variant("rd", "rd", "paper", options),
        Variant("memory-max", "memory", "paper", replace(options, memory_score="max")),
        Variant("memory-mean", "memory", "paper", mean),
        Variant("linear", "linear", "paper", options),
        Variant("linear-tuned", "linear-tuned", "paper", options),
        Variant("forest", "forest", "paper", options),
        Variant("classifier", "classifier", "paper", options),
        Variant("ranking", "ranking", "paper", options),
    ]
    for network in ("resnet18", "googlenet"):
        own = replace(options, network=network, network_weights="imagenet")
        random = replace(own, network_weights="none")
        found.append(Variant(f"classifier-{network}", "classifier", "paper", own))
        found.append(Variant(f"classifier-{network}-random", "classifier", "paper", random))
    return {variant.label: variant for variant in found}


def add_variants_option(parser: argparse.ArgumentParser, default: Sequence[str]) -> None:
    """Which of them to compare."""
    parser.add_argument(
        "--methods",
        nargs="+",
        default=list(default),
        metavar="NAME",
        help=f"of {', '.join(variants(MethodOptions()))}; default: {', '.join(default)}",
    )


def chosen_variants(names: Sequence[str], options: MethodOptions) -> list[Variant]:
    """The variants of these names.

    Raises:
        QprdError: there is none of a name.
    """
    known = variants(options)
    for name in names:
        if name not in known:
            raise QprdError(
                f"There is no {name!r} to compare.",
                where="--methods",
                fix=f"Known: {', '.join(known)}.",
                exit_code=ExitCode.USAGE,
            )
    return [known[name] for name in dict.fromkeys(names)]
