"""The table of models ghostdeploy can build, with the figures that were published for them. Imports no torch.

Counts are the printed strings, in millions, because a test compares our count with them to the last printed digit:
`params` of the form that is trained, `folded_params` after every parallel branch and BatchNorm is folded into its
convolution (weights and biases), `macs` multiply-accumulates of convolutions and linear layers of the folded form for
one image of `preprocess.size`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal

from ghostdeploy.arguments import require_kind
from ghostdeploy.errors import UsageError, did_you_mean
from ghostdeploy.preprocess import Preprocess

if TYPE_CHECKING:
    from collections.abc import Mapping

_CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
_CIFAR_STD = (0.2470, 0.2435, 0.2616)

Interpolation = Literal["bilinear", "bicubic"]


@dataclass(frozen=True, kw_only=True)
class ZooEntry:
    """One model: how to build it and what is known about it."""

    name: str
    family: str
    builder: str
    """Import string `module:function`; the function takes `kwargs` and `num_classes`."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    params: str
    """Millions of parameters in training form."""
    folded_params: str
    """Millions of parameters after folding."""
    macs: str
    """Millions of multiply-accumulates per image after folding."""
    top1: float | None = None
    """Published top-1 accuracy in percent, `None` where nothing was published for this size."""
    top5: float | None = None
    source: str
    """Where the accuracy and the design come from."""
    preprocess: Preprocess
    num_classes: int = 1000
    gain: float
    """Variance gain of an untrained model's weights, so that its logits neither vanish nor overflow."""
    note: str = ""
    """What deviates from the publication, in one sentence."""


def find(name: str) -> ZooEntry:
    """Returns the entry called `name`.

    Raises:
        UsageError: There is none, or `name` is not text.
    """
    require_kind("the model's name", name, str, "text")
    try:
        return ZOO[name]
    except KeyError:
        hint = did_you_mean(name, ZOO, otherwise="`ghostdeploy models` lists all models")
        raise UsageError(f"no model is called {name!r}", hint=hint) from None


def list_models(pattern: str = "*") -> list[ZooEntry]:
    """Returns the entries whose name matches `pattern`, in table order.

    Args:
        pattern: Shell-style pattern; a word without `*`, `?` or `[` matches every name that contains it.
    """
    require_kind("the pattern", pattern, str, "text")
    if not set(pattern) & set("*?["):
        pattern = f"*{pattern}*"
    return [entry for name, entry in ZOO.items() if fnmatchcase(name, pattern)]


def _imagenet(interpolation: Interpolation) -> Preprocess:
    return Preprocess(size=224, crop_fraction=0.875, interpolation=interpolation)


# name, width, params, folded, MACs, top-1, top-5
_GHOST_ROWS: dict[str, list[tuple[str, float, str, str, str, float | None, float | None]]] = {
    "ghostnet": [
        ("ghostnet_050", 0.5, "2.5873", "2.5818", "42.33", 66.2, None),
        ("ghostnet_100", 1.0, "5.1825", "5.1715", "141.15", 73.98, 91.46),
        ("ghostnet_130", 1.3, "7.3588", "7.3446", "227.00", 75.7, None),
    ],
    "ghostnet_v2": [
        ("ghostnetv2_100", 1.0, "6.1569", "6.1257", "167.05", 75.3, None),
        ("ghostnetv2_130", 1.3, "8.9604", "8.9199", "269.32", 76.9, None),
        ("ghostnetv2_160", 1.6, "12.3927", "12.3428", "398.61", 77.8, None),
    ],
    "ghostnet_v3": [
        ("ghostnetv3_050", 0.5, "3.3954", "2.8422", "49.64", None, None),
        ("ghostnetv3_100", 1.0, "8.1290", "6.1257", "167.05", 77.13, None),
        ("ghostnetv3_130", 1.3, "12.2177", "8.9199", "269.32", 79.1, None),
        ("ghostnetv3_160", 1.6, "17.2757", "12.3428", "398.61", None, None),
    ],
    "repghost": [
        ("repghostnet_050", 0.5, "2.3140", "2.3030", "43.3", 66.946, 86.928),
        ("repghostnet_058", 0.58, "2.5464", "2.5336", "59.8", 68.944, 88.422),
        ("repghostnet_080", 0.8, "3.2790", "3.2614", "95.5", 72.238, 90.486),
        ("repghostnet_100", 1.0, "4.0736", "4.0516", "142.4", 74.218, 91.548),
        ("repghostnet_111", 1.11, "4.5400", "4.5157", "170.1", 75.066, 92.186),
        ("repghostnet_130", 1.3, "5.4786", "5.4501", "231.1", 76.374, 92.898),
        ("repghostnet_150", 1.5, "6.5753", "6.5424", "301.3", 77.454, 93.500),
        ("repghostnet_200", 2.0, "9.7961", "9.7522", "515.9", 78.806, 94.326),
    ],
}

# builder, interpolation, gain, source
_GHOST_FAMILIES: dict[str, tuple[str, Interpolation, float, str]] = {
    "ghostnet": (
        "ghostdeploy.models.ghostnet:ghostnet",
        "bilinear",
        1.0,
        "Han et al., GhostNet, CVPR 2020 (1.0×: official README of Efficient-AI-Backbones)",
    ),
    "ghostnet_v2": (
        "ghostdeploy.models.ghostnet_v2:ghostnet_v2",
        "bicubic",
        1.2,
        "Tang et al., GhostNetV2, NeurIPS 2022",
    ),
    "ghostnet_v3": (
        "ghostdeploy.models.ghostnet_v3:ghostnet_v3",
        "bicubic",
        0.45,
        "Liu et al., GhostNetV3, arXiv 2404.11202 (1.0×: EMA weights as evaluated in PaddleClas #3413)",
    ),
    "repghost": (
        "ghostdeploy.models.repghost:repghostnet",
        "bicubic",
        0.8,
        "Chen et al., RepGhost, arXiv 2211.06088 (official README)",
    ),
}

# design, params, folded, MACs, top-1
_G_GHOST_ROWS: list[tuple[str, str, str, str, float | None]] = [
    ("002", "1.83", "1.8175", "131", None),
    ("004", "2.88", "2.8724", "221", None),
    ("006", "4.03", "4.0172", "390", None),
    ("008", "5.25", "5.2334", "529", None),
    ("016", "7.11", "7.0926", "1021", None),
    ("032", "10.51", "10.4886", "1802", 77.8),
    ("040", "15.73", "15.6985", "2228", 78.6),
    ("064", "17.99", "17.9658", "4055", None),
    ("080", "24.59", "24.5556", "4150", 79.0),
    ("120", "30.63", "30.5921", "7378", None),
    ("160", "32.38", "32.3444", "8997", 79.9),
    ("320", "62.82", "62.7609", "17158", None),
]


def _table() -> dict[str, ZooEntry]:
    entries = [*_ghost_entries(), *_g_ghost_entries(), *_ghostified_entries()]
    return {entry.name: entry for entry in entries}


def _ghost_entries() -> list[ZooEntry]:
    entries = []
    for family, rows in _GHOST_ROWS.items():
        builder, interpolation, gain, source = _GHOST_FAMILIES[family]
        for name, width, params, folded, macs, top1, top5 in rows:
            entry = ZooEntry(
                name=name,
                family=family,
                builder=builder,
                kwargs={"width": width},
                params=params,
                folded_params=folded,
                macs=macs,
                top1=top1,
                top5=top5,
                source=source,
                preprocess=_imagenet(interpolation),
                gain=gain,
            )
            entries.append(entry)
    return entries


def _g_ghost_entries() -> list[ZooEntry]:
    return [
        ZooEntry(
            name=f"g_ghost_regnetx_{design}",
            family="g_ghost_regnet",
            builder="ghostdeploy.models.g_ghost_regnet:g_ghost_regnet",
            kwargs={"design": design},
            params=params,
            folded_params=folded,
            macs=macs,
            top1=top1,
            source="Han et al., GhostNets on Heterogeneous Devices via Cheap Operations, IJCV 2022 (official README)",
            preprocess=_imagenet("bilinear"),
            gain=1.0,
        )
        for design, params, folded, macs, top1 in _G_GHOST_ROWS
    ]


def _ghostified_entries() -> list[ZooEntry]:
    resnet = ZooEntry(
        name="ghost_resnet50",
        family="ghost_resnet",
        builder="ghostdeploy.models.ghost_plug_and_play:ghost_resnet50",
        params="13.9535",
        folded_params="13.9270",
        macs="2151",
        top1=75.0,
        source="Han et al., GhostNet, CVPR 2020, table 6",
        preprocess=_imagenet("bilinear"),
        gain=1.0,
        note="the paper prints 13.0 M parameters, which only halving the classifier too would give, and 2.2 G MACs",
    )
    vgg = ZooEntry(
        name="ghost_vgg16",
        family="ghost_vgg",
        builder="ghostdeploy.models.ghost_plug_and_play:ghost_vgg16",
        params="7.7",
        folded_params="7.6463",
        macs="158",
        top1=93.7,
        source="Han et al., GhostNet, CVPR 2020, table 5 (CIFAR-10)",
        preprocess=Preprocess(size=32, crop_fraction=1.0, interpolation="bilinear", mean=_CIFAR_MEAN, std=_CIFAR_STD),
        num_classes=10,
        gain=1.5,
    )
    return [resnet, vgg]


ZOO: Mapping[str, ZooEntry] = _table()
"""Every entry by name."""
