"""Small vision transformers by name, in timm's own classes, for images that leave no room for timm's sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["SMALL_VITS", "named_vit", "plain_vit", "short_name"]

SMALL_VITS: dict[str, dict[str, Any]] = {
    "vit-pico": {"embed_dim": 32, "depth": 2, "num_heads": 2},
    "vit-micro": {"embed_dim": 72, "depth": 3, "num_heads": 3, "patch_size": 8},
    "vit-nano": {"embed_dim": 96, "depth": 4, "num_heads": 3},
    "vit-mini": {"embed_dim": 144, "depth": 6, "num_heads": 3},
}
"""Width, blocks and heads; the patch follows from the image size, as it does for timm's ViTs, unless it is named."""

_TIMM = "vit_tiny_patch16_224"


def plain_vit(name: str) -> bool:
    """Whether a name is one of timm's plain vision transformers, or of `SMALL_VITS`."""
    import timm

    known = named_vit(name)[0]
    return timm.is_model(known) and timm.model_entrypoint(known).__module__ == "timm.models.vision_transformer"


def named_vit(name: str) -> tuple[str, dict[str, Any]]:
    """timm's name and further options of one of `SMALL_VITS`; any other name comes back as it is, without options."""
    return (_TIMM, dict(SMALL_VITS[name])) if name in SMALL_VITS else (name, {})


def short_name(name: str, options: Mapping[str, Any]) -> str:
    """The name of `SMALL_VITS` that stands for timm's name with these options; else the name as it is."""
    for short, own in SMALL_VITS.items():
        if name == _TIMM and own.items() <= options.items():
            return short
    return name
