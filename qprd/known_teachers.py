"""Pathology networks that can be a teacher, by name: what each needs, costs and is licensed for.

Nothing here is shipped with the program. Each row was read from public code that runs the network;
its `source` says where. ``tests/model/test_hub.py`` builds every row in timm and compares
the number of parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

#: Any repository of timm weights on the Hugging Face hub, ``hf-hub:ORGANIZATION/NAME``.
HUB_PREFIX: Final = "hf-hub:"

#: The library whose names the tensors have in a network's official file.
Naming = Literal["timm", "transformers", "tiatoolbox"]

_Triple = tuple[float, float, float]
_IMAGENET: Final[tuple[_Triple, _Triple]] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_BIOPTIMUS: Final[tuple[_Triple, _Triple]] = (
    (0.707223, 0.578729, 0.703617),
    (0.211883, 0.230117, 0.177517),
)
_HIBOU: Final[tuple[_Triple, _Triple]] = ((0.7068, 0.5755, 0.722), (0.195, 0.2316, 0.1816))
_KAIKO: Final[tuple[_Triple, _Triple]] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_LUNIT: Final[tuple[_Triple, _Triple]] = (
    (0.70322989, 0.53606487, 0.66096631),
    (0.21716536, 0.26081574, 0.20723464),
)

_NC_ND: Final = "CC-BY-NC-ND-4.0"
_TRIDENT: Final = "github.com/mahmoodlab/TRIDENT"
_LAZYSLIDE: Final = "github.com/rendeirolab/lazyslide-models"
_EVA: Final = "github.com/kaiko-ai/eva"


@dataclass(frozen=True)
class KnownTeacher:
    """A network that was trained on pathology slides.

    Attributes:
        name: As ``--teacher`` takes it.
        repository: On the Hugging Face hub.
        file: The weights in it.
        architecture: As timm calls it.
        millions: Parameters of the whole network, in millions.
        normalization: Mean and standard deviation of RGB in 0..1.
        license: Of the weights.
        gated: Whether the hub asks for an account and for consent to conditions first.
        source: Public code that these facts are from.
        arguments: For timm, beside the architecture; plain numbers and booleans.
        swiglu: Whether the blocks have SwiGLU layers.
        conv_stem: Whether convolutions make the tokens, as in CTransPath.
        naming: Of the tensors in the file.
        mpp: Resolution that it was trained at, or the middle of several, micrometers per pixel.
        patch_px: Edge of the images it was trained on, which is the default of a patch.
    """

    name: str
    repository: str
    file: str
    architecture: str
    millions: float
    normalization: tuple[_Triple, _Triple]
    license: str
    gated: bool
    source: str
    arguments: Mapping[str, float | bool] = field(default_factory=dict)
    swiglu: bool = False
    conv_stem: bool = False
    naming: Naming = "timm"
    mpp: float = 0.5
    patch_px: int = 224

    @property
    def page(self) -> str:
        """Where the conditions are, and access is asked for."""
        return f"https://huggingface.co/{self.repository}"

    @property
    def conditions(self) -> str:
        """License and gate in a sentence."""
        gate = f"; access must be requested at {self.page}" if self.gated else ""
        return f"The weights of {self.name} are under the license {self.license}{gate}."


_ALL: Final = (
    KnownTeacher(
        "uni",
        "MahmoodLab/UNI",
        "pytorch_model.bin",
        "vit_large_patch16_224",
        303.4,
        _IMAGENET,
        _NC_ND,
        gated=True,
        source=f"{_TRIDENT}, {_LAZYSLIDE}",
        arguments={"img_size": 224, "init_values": 1e-5},
    ),
    KnownTeacher(
        "uni2-h",
        "MahmoodLab/UNI2-h",
        "pytorch_model.bin",
        "vit_giant_patch14_224",
        681.4,
        _IMAGENET,
        _NC_ND,
        gated=True,
        source=f"{_TRIDENT}, {_LAZYSLIDE}",
        arguments={
            "img_size": 224,
            "patch_size": 14,
            "depth": 24,
            "num_heads": 24,
            "init_values": 1e-5,
            "embed_dim": 1536,
            "mlp_ratio": 2.66667 * 2,
            "no_embed_class": True,
            "reg_tokens": 8,
        },
        swiglu=True,
    ),
    *(
        KnownTeacher(
            name.lower(),
            f"paige-ai/{name}",
            "pytorch_model.bin",
            "vit_huge_patch14_224",
            631.2,
            _IMAGENET,
            terms,
            gated=True,
            source=f"{_TRIDENT}, {_LAZYSLIDE}",
            arguments={
                "img_size": 224,
                "init_values": 1e-5,
                "mlp_ratio": 5.3375,
                "reg_tokens": registers,
            },
            swiglu=True,
        )
        for name, terms, registers in (("Virchow", "Apache-2.0", 0), ("Virchow2", _NC_ND, 4))
    ),
    *(
        KnownTeacher(
            f"h-optimus-{version}",
            f"bioptimus/H-optimus-{version}",
            "pytorch_model.bin",
            "vit_giant_patch14_reg4_dinov2",
            1134.8,
            _BIOPTIMUS,
            terms,
            gated=version == 1,
            source=f"{_TRIDENT}, {_LAZYSLIDE}",
            arguments={"img_size": 224, "init_values": 1e-5},
        )
        for version, terms in enumerate(("Apache-2.0", _NC_ND))
    ),
    KnownTeacher(
        "h0-mini",
        "bioptimus/H0-mini",
        "pytorch_model.bin",
        "vit_base_patch14_reg4_dinov2",
        85.7,
        _BIOPTIMUS,
        _NC_ND,
        gated=True,
        source=f"{_TRIDENT}, {_LAZYSLIDE}",
        arguments={"img_size": 224, "init_values": 1e-5, "mlp_ratio": 5.33334},
        swiglu=True,
    ),
    KnownTeacher(
        "phikon",
        "owkin/phikon",
        "model.safetensors",
        "vit_base_patch16_224",
        85.8,
        _IMAGENET,
        "Owkin non-commercial",
        gated=False,
        source=f"{_TRIDENT}, {_LAZYSLIDE}",
        naming="transformers",
    ),
    KnownTeacher(
        "phikon-v2",
        "owkin/phikon-v2",
        "model.safetensors",
        "vit_large_patch16_224",
        303.4,
        _IMAGENET,
        "Owkin non-commercial",
        gated=False,
        source=f"{_TRIDENT}, {_LAZYSLIDE}",
        arguments={"init_values": 1e-5},
        naming="transformers",
    ),
    *(
        KnownTeacher(
            repository.lower(),
            f"histai/{repository}",
            "model.safetensors",
            f"vit_{size}_patch14_reg4_dinov2",
            millions,
            _HIBOU,
            "Apache-2.0",
            gated=True,
            source=f"github.com/HistAI/hibou, {_LAZYSLIDE}",
            arguments={"img_size": 224, "init_values": 1e-5, "mlp_ratio": mlp_ratio},
            swiglu=True,
            naming="transformers",
        )
        for repository, size, millions, mlp_ratio in (
            ("hibou-b", "base", 85.7, 5.33334),
            ("hibou-L", "large", 303.7, 5.34375),
        )
    ),
    KnownTeacher(
        "gigapath",
        "prov-gigapath/prov-gigapath",
        "pytorch_model.bin",
        "vit_giant_patch14_dinov2",
        1135.0,
        _IMAGENET,
        "Prov-GigaPath, Apache-2.0 with conditions",
        gated=True,
        source=f"{_TRIDENT}, {_LAZYSLIDE}",
        arguments={
            "img_size": 224,
            "patch_size": 16,
            "embed_dim": 1536,
            "depth": 40,
            "num_heads": 24,
            "mlp_ratio": 5.33334,
        },
    ),
    KnownTeacher(
        "ctranspath",
        "1aurent/swin_tiny_patch4_window7_224.CTransPath",
        "model.safetensors",
        "swin_tiny_patch4_window7_224",
        27.5,
        _IMAGENET,
        "GPL-3.0",
        gated=False,
        source=f"github.com/Xiyue-Wang/TransPath, {_TRIDENT}",
        conv_stem=True,
        mpp=1.0,
    ),
    *(
        KnownTeacher(
            f"kaiko-{size[0]}{patch}",
            f"1aurent/{architecture}.kaiko_ai_towards_large_pathology_fms",
            "model.safetensors",
            architecture.replace("reg4_224", "reg4_dinov2"),
            millions,
            _KAIKO,
            "Kaiko non-commercial",
            gated=False,
            source=f"github.com/kaiko-ai/towards_large_pathology_fms, {_TRIDENT}",
            arguments={"img_size": 518} if size == "large" else {},
        )
        for size, patch, architecture, millions in (
            ("small", 16, "vit_small_patch16_224", 21.7),
            ("small", 8, "vit_small_patch8_224", 21.7),
            ("base", 16, "vit_base_patch16_224", 85.8),
            ("base", 8, "vit_base_patch8_224", 85.8),
            ("large", 14, "vit_large_patch14_reg4_224", 304.4),
        )
    ),
    *(
        KnownTeacher(
            f"lunit-s{patch}",
            f"1aurent/vit_small_patch{patch}_224.lunit_dino",
            "model.safetensors",
            f"vit_small_patch{patch}_224",
            21.7,
            _LUNIT,
            "Lunit non-commercial",
            gated=False,
            source=f"github.com/lunit-io/benchmark-ssl-pathology, {_EVA}",
        )
        for patch in (16, 8)
    ),
    *(
        KnownTeacher(
            f"lunit-{method}",
            f"1aurent/resnet50.lunit_{method}",
            "model.safetensors",
            "resnet50",
            23.5,
            _IMAGENET,
            "Lunit non-commercial",
            gated=False,
            source="github.com/lunit-io/benchmark-ssl-pathology; normalization: the hub's "
            "config.json",
        )
        for method in ("bt", "mocov2", "swav")
    ),
    *(
        KnownTeacher(
            f"kather-resnet{depth}",
            "TIACentre/TIAToolbox_pretrained_weights",
            f"resnet{depth}-kather100k.pth",
            f"resnet{depth}",
            millions,
            ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
            "CC-BY-4.0",
            gated=False,
            source="github.com/TissueImageAnalytics/tiatoolbox",
            naming="tiatoolbox",
        )
        for depth, millions in ((18, 11.2), (50, 23.5))
    ),
)

#: All rows by name.
KNOWN_TEACHERS: Final[Mapping[str, KnownTeacher]] = MappingProxyType({t.name: t for t in _ALL})


def known_teacher(name: str) -> KnownTeacher | None:
    """Find a row by its name, or by its repository as ``hf-hub:ORGANIZATION/NAME``.

    Examples:
        >>> known_teacher("hf-hub:MahmoodLab/uni").name
        'uni'
    """
    repository = name.removeprefix(HUB_PREFIX).lower()
    found = (
        row
        for row in KNOWN_TEACHERS.values()
        if name.startswith(HUB_PREFIX) and row.repository.lower() == repository
    )
    return KNOWN_TEACHERS.get(name) or next(found, None)
