"""What fine-tuning may be told, its named recipes, a rate for each layer and branches left out at random.

The recipes of masked pre-training are those of He et al. (2022, arXiv 2111.06377, table 9) and Bao et al. (2022, arXiv
2106.08254).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Annotated, Any, Literal

import torch
from torch import nn

from selftaught.catalog.rules import Count, NonNegative, PositiveShare, Range, Share, check_options, rules_of
from selftaught.errors import UserError

__all__ = ["Tuning"]

_BelowOne = Annotated[float, Range(0, below=1)]
_MASKED: dict[str, Any] = {
    "weight_decay": 0.05, "batch": 1024, "min_lr": 1e-6, "drop_path": 0.1, "mixup": 0.8, "cutmix": 1.0,
    "smoothing": 0.1, "crop": 0.08, "randaug": 9.0, "erasing": 0.25,
}  # fmt: skip
_LARGE: dict[str, Any] = {"layer_decay": 0.75, "drop_path": 0.2, "epochs": 50, "warmup_epochs": 5.0}

RECIPES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "adamw": {"lr": 3e-4, "head_lr": 3e-3, "weight_decay": 0.01, "batch": 64},
        "vit": {"lr": 1e-3, "head_lr": 1e-3, "weight_decay": 0.05, "batch": 32},
        "mae": _MASKED | {"base_lr": 5e-4, "layer_decay": 0.65, "epochs": 100, "warmup_epochs": 5.0},
        "mae-large": _MASKED | _LARGE | {"base_lr": 1e-3},
        "mae-huge": _MASKED | _LARGE | {"base_lr": 1e-3, "drop_path": 0.3},
        "beit": _MASKED | {"base_lr": 1e-3, "layer_decay": 0.65, "epochs": 100, "warmup_epochs": 20.0},
        "beit-large": _MASKED | _LARGE | {"base_lr": 2.5e-4},
        "sit": _MASKED
        | {"base_lr": 2.5e-4, "min_lr": 1e-5, "head": "sit", "batch": 512, "epochs": 300, "warmup_epochs": 5.0},
        "barlow-twins": {"optimizer": "sgd", "lr": 0.005, "head_lr": 0.5, "weight_decay": 0.0, "batch": 256},
        "cvrl": {"optimizer": "sgd", "lr": 0.16, "head_lr": 0.16, "weight_decay": 0.0, "batch": 128},
    }
)
"""Named defaults: "adamw" is the toolkit's, "vit" for small transformers with few labels, "mae" and "beit" those of the
papers' own code for ViT-B (and -L, -H) on ImageNet, where averages of the weights (``ema``) are an option that is off,
"sit" is DeiT's (Touvron et al. 2021, arXiv 2012.12877) with SiT's head on class token and mean of the patch tokens,
"barlow-twins" the semi-supervised recipe of that sheet (20 epochs too), "cvrl" that for clips (its paper: 50 epochs).
"""


@dataclass
class Tuning:
    """How an encoder is fine-tuned.

    Raises:
        UserError: a value that can't be.
    """

    optimizer: Literal["adamw", "sgd"] = "adamw"
    head: Literal["linear", "sit"] = "linear"
    """linear: on the embedding; sit: two layers on [class token, mean of the patch tokens] (transformers)."""
    epochs: Count = 20
    batch: Annotated[int, Range(2)] = 64
    lr: NonNegative | None = None
    """Rate of the encoder; None: ``base_lr`` times the batch over 256."""
    head_lr: NonNegative | None = None
    """Rate of the head; None: the encoder's."""
    base_lr: NonNegative = 0.0
    """Rate for batches of 256, where ``lr`` isn't given."""
    min_lr: NonNegative = 0.0
    """Rate at the end of the half cosine."""
    weight_decay: NonNegative = 0.01
    warmup_epochs: NonNegative = 0.0
    """Epochs over which the rates rise from 0."""
    layer_decay: PositiveShare = 1.0
    """Each layer's rate is that of the layer above times this; the head has the whole rate."""
    drop_path: _BelowOne = 0.0
    """Chance of the last block's branches to be left out, growing linearly from 0 at the first."""
    mixup: NonNegative = 0.0
    """Alpha of mixup; 0: none. With both, each batch has one of them, by even chance."""
    cutmix: NonNegative = 0.0
    """Alpha of CutMix; 0: none."""
    smoothing: _BelowOne = 0.0
    """Share of the target that is spread evenly over all classes."""
    ema: _BelowOne = 0.0
    """Decay of a moving average of the weights, which is then what is judged; 0: none."""
    crop: Share = 0.0
    """Random crops from this share of the image on, and a flip; 0: neither."""
    randaug: Annotated[float, Range(0, 10)] = 0.0
    """Magnitude of RandAugment's two operations, with a deviation of 0.5; 0: none."""
    erasing: Share = 0.0
    """Chance that a rectangle gives way to noise."""

    def __post_init__(self) -> None:
        check_options(self)

    @classmethod
    def of(cls, recipe: str, n: int, **changes: Any) -> Tuning:
        """A recipe with changes (None changes nothing), and with the rates that n training samples give it.

        Raises:
            UserError: an unknown recipe, an option that there isn't, a value that can't be.
        """
        if recipe not in RECIPES:
            raise UserError(f"recipe: no {recipe!r}; one of {', '.join(RECIPES)}")
        given = {name: value for name, value in changes.items() if value is not None}
        known = [field.name for field in fields(cls)]
        if unknown := [name for name in given if name not in known]:
            raise UserError(f"{unknown[0]}: no option of fine-tuning, which has {', '.join(known)}")
        own = dict(RECIPES[recipe])
        if "base_lr" in given:
            own.pop("lr", None)
        found = cls(**own | given)
        if found.lr is None:
            found.lr = found.base_lr * min(found.batch, n) / 256
        found.head_lr = found.lr if found.head_lr is None else found.head_lr
        if not found.warmup_epochs < found.epochs:
            raise UserError(
                f"warmup_epochs={found.warmup_epochs:g} of {found.epochs} epochs: nothing is left for the full rate; "
                "lower it"
            )
        return found

    @property
    def mixes(self) -> bool:
        """Whether pictures are mixed."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def changes_pixels(self) -> bool:
        """Whether pictures are cropped, distorted or erased."""
        return self.crop > 0 or self.randaug > 0 or self.erasing > 0


def parse_tuning(text: str | Mapping[str, Any]) -> dict[str, Any]:
    """Changes to a recipe as they are written on the command line: ``epochs=20,layer_decay=0.75``.

    Raises:
        UserError: an option that there isn't, or a value that it can't have.
    """
    rules = rules_of(Tuning)
    given = dict(part.partition("=")[::2] for part in text.split(",") if part) if isinstance(text, str) else text
    found = {}
    for name, value in given.items():
        if name not in rules:
            raise UserError(f"--tune {name}: fine-tuning has {', '.join(f.name for f in fields(Tuning))}")
        try:
            found[name] = rules[name].parse(value) if isinstance(value, str) else rules[name].check(value)
        except ValueError as error:
            raise UserError(f"--tune {name}={value}; it may be: {error}") from None
    return found


# ---- rates -----------------------------------------------------------------------------------------------------------
def rate_factor(step: float, steps: int, warmup: float, low: float = 0.0, cosine: bool = True) -> float:
    """Factor on every rate: from 0 linearly to 1 over ``warmup`` steps, then a half cosine to ``low`` at the end."""
    if step < warmup:
        return step / warmup
    if not cosine:
        return 1.0
    done = min(1.0, (step - warmup) / max(1, steps - warmup))
    return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * done))


def layer_scales(encoder: nn.Module, decay: float) -> dict[str, float]:
    """Factor on the rate of every parameter by its name: decay ** (B + 1 - layer).

    Patch embedding, positions and class token are layer 0, block i of B (from 0 on) is i + 1, what comes after them is
    B + 1, as the head is, whose factor is 1. Networks of timm without such blocks are divided by timm's own account.

    Raises:
        UserError: a network that doesn't say what its layers are.
    """
    found = _transformer(encoder)
    if found is not None:
        prefix, trunk, blocks = found
        last = len(blocks) + 1
        layers = {name: _layer(name, last) for name, _ in trunk.named_parameters()}
    else:
        prefix, matcher = next(_matchers(encoder), ("", None))
        if matcher is None:
            raise UserError("layer_decay: this encoder doesn't say what its layers are; take layer_decay=1")
        from timm.models import group_parameters

        trunk = encoder.get_submodule(prefix)
        layers = group_parameters(trunk, matcher(coarse=False), reverse=True)
        last = max(layers.values()) + 1
    lead = f"{prefix}." if prefix else ""
    scales = {lead + name: decay ** (last - layer) for name, layer in layers.items()}
    return {name: scales.get(name, 1.0) for name, _ in encoder.named_parameters()}


def _matchers(encoder: nn.Module) -> Iterator[tuple[str, Any]]:
    """Modules of timm that tell which layer a parameter belongs to: name and the function."""
    for name, module in encoder.named_modules():
        if callable(found := getattr(module, "group_matcher", None)):
            yield name, found


def _transformer(encoder: nn.Module) -> tuple[str, nn.Module, Sequence[nn.Module]] | None:
    """The module that holds transformer blocks, its name, and they; None where there is none."""
    for name, module in encoder.named_modules():
        blocks = getattr(module, "blocks", None)
        if isinstance(blocks, nn.ModuleList | nn.Sequential) and len(blocks):
            kept = list(blocks)
            if all(hasattr(block, "attn") and hasattr(block, "mlp") for block in kept):
                return name, module, kept
    return None


def _layer(name: str, last: int) -> int:
    """Layer of a parameter of a transformer by its name."""
    first, _, rest = name.partition(".")
    if first == "blocks":
        return int(rest.partition(".")[0]) + 1
    return 0 if "embed" in first or "token" in first or first == "norm_pre" else last


def add_drop_path(encoder: nn.Module, rate: float) -> None:
    """Leave branches of a transformer's blocks out at random while it trains, block i of B with rate i / (B - 1).

    Raises:
        UserError: a network without transformer blocks.
    """
    from timm.layers.drop import DropPath

    found = _transformer(encoder)
    if found is None or not all(hasattr(block, "drop_path1") for block in found[2]):
        raise UserError(
            "drop_path: this encoder has no transformer blocks whose branches could be left out; set it to 0"
        )
    blocks: Sequence[Any] = found[2]
    for block, chance in zip(blocks, torch.linspace(0, rate, len(blocks)).tolist(), strict=True):
        block.drop_path1, block.drop_path2 = DropPath(chance), DropPath(chance)


def kept_apart(encoder: nn.Module) -> set[str]:
    """Names of parameters that a network wants no weight decay on: position tables and class tokens."""
    found = set()
    for prefix, module in encoder.named_modules():
        named = getattr(module, "no_weight_decay", None)
        if callable(named):
            found |= {f"{prefix}.{name}".lstrip(".") for name in named()}
    return found
