"""Models of open_clip: found by name with their weights, and taken over as towers of our own to be trained further."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from selftaught.errors import UserError, require
from selftaught.networks.dual import DualEncoder
from selftaught.networks.encoders import encoder
from selftaught.networks.hub import hub
from selftaught.networks.text import TextTransformer

__all__ = ["OPEN_CLIP", "OpenClipPlan", "open_clip_dual", "open_clip_model", "open_clip_pixels", "open_clip_plan"]

OPEN_CLIP = "open_clip:"
"""What stands before a model's name."""
RANDOM = "random"
"""What stands for the weights where none are wanted."""

_SIZES = {
    "base": (768, 12, 12), "large": (1024, 24, 16), "huge": (1280, 32, 16), "giant": (1408, 40, 16),
    "gigantic": (1664, 48, 16),
}  # fmt: skip
"""Width, blocks and heads of timm's CLIP transformers."""
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class OpenClipPlan:
    """What a model of open_clip is, told without its weights.

    Attributes:
        encoder: its image tower as `encoder` takes it.
        image_size: side of its images in pixels.
        dim: width of the space where both towers meet.
        text: options of its `TextTransformer`.
        mean: of the pixels that it was trained on, per channel.
        std: their deviation.
    """

    encoder: str
    image_size: int
    dim: int
    text: dict[str, Any]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def _asked(name: str) -> tuple[Any, str, str, dict[str, Any]]:
    """The library, architecture, weights, and what open_clip knows of these weights.

    Raises:
        UserError: no such architecture or weights; none are named.
    """
    library: Any = require("open_clip", "clip")
    plain = name.removeprefix(OPEN_CLIP)
    architecture, _, weights = plain.partition("/")
    known = library.list_models()
    if architecture not in known:
        raise UserError(f"open_clip has no model {architecture!r}; it has {', '.join(known[:5])} ...")
    if weights == RANDOM or (weights and Path(weights).expanduser().is_file()):
        return library, architecture, weights, {}
    tags: list[str] = library.list_pretrained_tags_by_model(architecture)
    told: dict[str, Any] = library.get_pretrained_cfg(architecture, weights) if weights else {}
    if not told:
        there = "".join(f"{tag}, " for tag in tags[:6]) + "... , " * (len(tags) > 6)
        asked = "no such weights, and no such file" if weights else "no weights named"
        raise UserError(
            f"open_clip:{plain}: {asked}; write open_clip:{architecture}/WEIGHTS, these being {there}a file, or random"
        )
    return library, architecture, weights, told


def _quick(library: Any, architecture: str, told: Mapping[str, Any]) -> bool:
    """Whether its weights were trained with QuickGELU: as they say themselves, else as its name says."""
    return bool(told.get("quick_gelu", False) or library.get_model_config(architecture).get("quick_gelu", False))


def open_clip_model(name: str) -> Any:
    """A model of open_clip in float32, with the activation that its weights were trained with.

    Args:
        name: ``open_clip:ARCHITECTURE/WEIGHTS`` (the front may be left out); weights by open_clip's tag, a file, or
            ``random``.

    Raises:
        UserError: open_clip isn't installed, has no such model, or its weights can't be had here.
    """
    library, architecture, weights, told = _asked(name)
    options: dict[str, Any] = {"force_quick_gelu": _quick(library, architecture, told)}
    try:
        with hub(), _quiet():
            given = None if weights == RANDOM else str(Path(weights).expanduser()) if not told else weights
            return library.create_model(architecture, pretrained=given, pretrained_text=False, **options).float()
    except Exception as error:  # whatever a hub's client or a damaged file raises
        reason = " ".join(str(error).split())[:120] if str(error) else type(error).__name__
        mend = "go online once, or name a file with its weights" if told else "give the weights of this architecture"
        raise UserError(f"open_clip:{architecture}/{weights} can't be had here ({reason}); {mend}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing of what the library logs; what is wrong it raises as well."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def open_clip_plan(name: str) -> OpenClipPlan:
    """What a model of open_clip is, from its description alone.

    Args:
        name: as `open_clip_model` takes it.

    Raises:
        UserError: no such model, or one whose towers are others than CLIP's.
    """
    library, architecture, _, told = _asked(name)
    config, quick = library.get_model_config(architecture), _quick(library, architecture, told)
    vision, text = config["vision_cfg"], config["text_cfg"]
    if "hf_model_name" in text or "hf_tokenizer_name" in text or "multimodal_cfg" in config:
        raise UserError(
            f"open_clip:{architecture} reads texts in its own way; take one such as ViT-B-32 or convnext_base"
        )
    size = vision.get("image_size", 224)
    side = int(size[0] if isinstance(size, list | tuple) else size)
    options = {
        "vocabulary": text.get("vocab_size", 49408), "context": text.get("context_length", 77),
        "width": text.get("width", 512), "heads": text.get("heads", 8), "layers": text.get("layers", 12),
        "activation": "quick-gelu" if quick else "gelu",
    }  # fmt: skip
    image = _image_tower(architecture, vision, quick)
    return OpenClipPlan(image, side, int(config["embed_dim"]), options, *open_clip_pixels(name))


def open_clip_pixels(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of the pixels that weights were trained on; CLIP's own where they say nothing else.

    Args:
        name: as `open_clip_model` takes it.
    """
    library, _, _, told = _asked(name)
    mean, std = told.get("mean") or library.OPENAI_DATASET_MEAN, told.get("std") or library.OPENAI_DATASET_STD
    return tuple(mean), tuple(std)


def _image_tower(architecture: str, vision: Mapping[str, Any], quick: bool) -> str:
    """timm's name of an image tower, with the options in which it differs."""
    if "timm_model_name" in vision:
        if vision.get("timm_proj", "linear") != "linear" or vision.get("timm_proj_bias"):
            raise UserError(f"open_clip:{architecture} ends in a head of its own; take one such as ViT-B-32")
        return str(vision["timm_model_name"])
    layers, patch = vision.get("layers", 12), vision.get("patch_size", 16)
    if not isinstance(layers, int) or patch is None:
        raise UserError(f"open_clip:{architecture} is a ResNet with a pooling of its own; take one such as ViT-B-32")
    width = vision.get("width", 768)
    wanted = (width, layers, width // vision.get("head_width", 64))
    size = next((size for size, known in _SIZES.items() if known == wanted), "base")
    name = f"vit_{size}_patch{patch}_clip_224"
    import timm

    name = name if timm.is_model(name) else "vit_base_patch32_clip_224"
    known = _SIZES[name.split("_")[1]]
    differs: dict[str, Any] = {
        option: value
        for option, value, usual in zip(("embed_dim", "depth", "num_heads"), wanted, known, strict=True)
        if value != usual
    }
    if f"_patch{patch}_" not in name:
        differs["patch_size"] = patch
    if (ratio := vision.get("mlp_ratio", 4.0)) != 4.0 or "gigantic" in name or "giant" in name:
        differs["mlp_ratio"] = ratio
    if vision.get("ls_init_value"):
        differs["init_values"] = vision["ls_init_value"]
    if quick:
        differs["act_layer"] = "quick_gelu"
    return name + "?" * bool(differs) + "&".join(f"{option}={value}" for option, value in differs.items())


def open_clip_dual(name: str) -> DualEncoder:
    """Towers, heads and scale of a model of open_clip as a `DualEncoder`: timm's image tower, our text tower.

    Both towers are held against open_clip's own, on images and texts that mean nothing.

    Args:
        name: as `open_clip_model` takes it.

    Raises:
        UserError: no such model, its weights can't be had, or its towers are others than CLIP's.
    """
    plan, model = open_clip_plan(name), open_clip_model(name)
    text = getattr(model, "text", model)
    found = DualEncoder(encoder(plan.encoder, image_size=plan.image_size), TextTransformer(**plan.text), dim=plan.dim)
    state = found.state_dict()
    given = _image_weights(model.visual, found.image.model) | {  # type: ignore[arg-type]
        f"text.{key}": value for key, value in text.state_dict().items() if f"text.{key}" in state
    }
    head = getattr(model.visual, "head", None)
    given["z_image.weight"] = model.visual.proj.T if head is None else head.proj.weight
    given["z_text.weight"] = text.text_projection.T
    given["scale"] = model.logit_scale
    what = f"{OPEN_CLIP}{name.removeprefix(OPEN_CLIP)}"
    try:
        found.load_state_dict({key: value.detach() for key, value in given.items()}, assign=True)
    except RuntimeError as error:
        raise UserError(
            f"{what}: its towers are built in another way than CLIP's; take one such as ViT-B-32"
        ) from error
    found.requires_grad_(True)
    _check(found.eval(), model.eval(), plan, what)
    return found.train()


def _image_weights(visual: Any, tower: nn.Module) -> dict[str, Tensor]:
    """Weights of open_clip's image tower under timm's names."""
    from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

    if hasattr(visual, "trunk"):
        found = visual.trunk.state_dict()
    elif isinstance(tower, VisionTransformer):
        state = {f"visual.{key.replace('.ls_', '.ls')}": value for key, value in visual.state_dict().items()}
        found = {key: value for key, value in checkpoint_filter_fn(state, tower).items() if not key.startswith("head.")}
    else:
        found = {}
    return {f"image.model.{key}": value for key, value in found.items()}


@torch.no_grad()
def _check(found: DualEncoder, model: Any, plan: OpenClipPlan, what: str) -> None:
    """Hold both towers against the original's.

    Raises:
        UserError: they give something else.
    """
    chance = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, plan.image_size, plan.image_size, generator=chance)
    tokens = torch.randint(1, plan.text["vocabulary"] - 2, (2, plan.text["context"]), generator=chance)
    tokens[0, 5:], tokens[:, 0] = 0, plan.text["vocabulary"] - 2
    tokens[0, 5] = tokens[1, -1] = plan.text["vocabulary"] - 1
    pairs = {
        "image": (found(x), model.encode_image(x)),
        "text": (found.embed_texts(found.text(tokens)), model.encode_text(tokens)),
    }
    for tower, (own, other) in pairs.items():
        off = float((own - nn.functional.normalize(other.float(), dim=1)).abs().max())
        if not off < _TOLERANCE or not math.isfinite(off):
            raise UserError(f"{what}: its {tower} tower does something that CLIP's does not; take one such as ViT-B-32")
