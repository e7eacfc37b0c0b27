"""Small vision transformers by name, in timm's own classes, for images that leave no room for timm's sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selftaught.errors import UserError

__all__ = ["SMALL_VITS", "named_vit", "plain_vit", "short_name"]

SMALL_VITS: dict[str, dict[str, Any]] = {
    "vit-pico": {"embed_dim": 32, "depth": 2, "num_heads": 2},
    "vit-micro": {"embed_dim": 72, "depth": 3, "num_heads": 3, "patch_size": 8},
    "vit-nano": {"embed_dim": 96, "depth": 4, "num_heads": 3},
    "vit-mini": {"embed_dim": 144, "depth": 6, "num_heads": 3},
}
"""Width, blocks and heads; the patch follows from the image size, as it does for timm's ViTs, unless it is named."""

_TIMM = "vit_tiny_patch16_224"
_ARCHITECTURE = ("embed_dim", "depth", "num_heads", "mlp_ratio", "init_values", "act_layer")
"""Options of timm's transformers that weights have to agree with."""


def plain_vit(name: str) -> bool:
    """Whether a name is one of timm's plain vision transformers, or of `SMALL_VITS`."""
    import timm

    known = named_vit(name)[0]
    return timm.is_model(known) and timm.model_entrypoint(known).__module__ == "timm.models.vision_transformer"


def named_vit(name: str) -> tuple[str, dict[str, Any]]:
    """timm's name and further options of one of `SMALL_VITS`, or of a name with options: ``vit_x?depth=4&mlp_ratio=2``.

    Any other name comes back as it is, without options.

    Raises:
        UserError: what stands behind the question mark is no list of options.
    """
    plain, _, behind = name.partition("?")
    base, own = (_TIMM, dict(SMALL_VITS[plain])) if plain in SMALL_VITS else (plain, {})
    return base, own | {option: _value(value) for option, value in _pairs(name, behind)}


def _pairs(name: str, behind: str) -> list[tuple[str, str]]:
    found = []
    for part in filter(None, behind.split("&")):
        option, sign, value = part.partition("=")
        if not (option.isidentifier() and sign and value):
            raise UserError(f"encoder={name}: {part!r} is no option; write NAME?option=value&option=value")
        found.append((option, value))
    return found


def _value(text: str) -> Any:
    """A number, a truth value or a word."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def short_name(name: str, options: Mapping[str, Any]) -> str:
    """What `named_vit` turns into timm's name with those of these options that make its architecture.

    The patch follows from the image size, where nothing but it was asked for.
    """
    left = {key: options[key] for key in _ARCHITECTURE if key in options}
    for short, own in SMALL_VITS.items():
        if name == _TIMM and own.items() <= options.items():
            return short
    if left and "patch_size" in options:
        left["patch_size"] = options["patch_size"]
    return name + "?" * bool(left) + "&".join(f"{key}={value}" for key, value in left.items())
