"""The models inside encoders: built by name, from timm or of this toolkit, and the lines that build them again."""

from __future__ import annotations

import contextlib
import difflib
import json
from typing import Any

from torch import nn

from selftaught.errors import NoWeights, UserError, first_line
from selftaught.networks.alexnet import ABOUT as ABOUT_ALEXNET
from selftaught.networks.alexnet import SMALL_ALEXNET, small_alexnet
from selftaught.networks.hub import hub
from selftaught.networks.small_cnn import ABOUT as ABOUT_CNN
from selftaught.networks.small_cnn import SMALL_CNN, small_cnn
from selftaught.networks.stems import OWN, keywords, own_resnet
from selftaught.networks.tokens import largest_patch
from selftaught.networks.vits import SMALL_VITS

PLAIN = {SMALL_ALEXNET: (small_alexnet, ABOUT_ALEXNET), SMALL_CNN: (small_cnn, ABOUT_CNN)}
"""Networks of torch's own layers, for small images."""


def own_encoders() -> dict[str, str]:
    """This toolkit's own small encoders: name to a line about each. They need nothing but timm to load."""
    return {name: recipe.about for name, recipe in OWN.items()} | {name: about for name, (_, about) in PLAIN.items()}


# ---- building -----------------------------------------------------------------------------------------------------
def own_network(
    name: str, channels: int, small: bool, zero_init_last: bool, options: dict[str, Any]
) -> tuple[nn.Module, list[str]]:
    """One of this toolkit's own networks, and the lines of code that build it again.

    Raises:
        UserError: an option that it does not know.
    """
    try:
        return own_resnet(name, channels, small, zero_init_last, options)
    except TypeError as error:
        raise _refused(name, error) from error


def from_timm(
    name: str, channels: int, pretrained: bool, zero_init_last: bool, options: dict[str, Any]
) -> tuple[nn.Module, list[str]]:
    """One of timm's models without its classifier, and the lines of code that build it again.

    Raises:
        UserError: options that it does not take; pretrained weights that can't be had.
    """
    import timm

    arguments = {"in_chans": channels, "num_classes": 0, **options}
    knows_zero_init = timm.model_entrypoint(name).__module__ == "timm.models.resnet"
    start: dict[str, Any] = {"zero_init_last": zero_init_last} if knows_zero_init or not zero_init_last else {}
    try:
        with hub() if pretrained else contextlib.nullcontext():
            model = timm.create_model(name, pretrained=pretrained, **arguments, **start)
    except TypeError as error:
        raise _refused(name, error) from error
    except (AssertionError, ValueError) as error:
        with_options = keywords(options) or "these options"
        raise UserError(f"encoder={name}: can't be built with {with_options}: {error}") from error
    except Exception as error:
        if not pretrained:
            raise
        reason = first_line(error)
        raise NoWeights(
            f"encoder={name}: its pretrained weights can't be had ({reason}); go online once, or use pretrained=False",
            reason,
        ) from error
    return model, [f"model = timm.create_model({name!r}, {keywords(arguments)})"]


def timm_options(name: str, image_size: int | None, pretrained: bool, given: dict[str, Any]) -> dict[str, Any]:
    """What goes to ``timm.create_model``: the user's options, and those that follow from the image size.

    Raises:
        UserError: no such model, or no weights of that tag.
    """
    import timm

    if not timm.is_model(name):
        raise UserError(_unknown(name))
    try:
        options, config = dict(given), timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        bare = name.partition(".")[0]
        tags = ", ".join(timm.list_pretrained(f"{bare}.*")[:5]) or bare
        raise UserError(f"encoder={name}: timm has no weights of that tag; there are {tags}") from error
    if image_size is None or config is None or not config.fixed_input_size or "img_size" in options:
        return options
    options["img_size"] = image_size
    plain_vit = timm.model_entrypoint(name).__module__ in _PLAIN_VITS
    if plain_vit and not pretrained and "patch_size" not in options:
        options["patch_size"] = largest_patch(name, image_size, own_patch(name))
    return options


_PLAIN_VITS = ("timm.models.vision_transformer", "timm.models.deit")


def own_patch(name: str) -> int:
    """The side of a patch that a model's name says, 16 where it says none."""
    digits = name.partition("patch")[2].partition("_")[0]
    return int(digits) if digits.isdigit() else 16


# ---- describing ---------------------------------------------------------------------------------------------------
def provenance(model: nn.Module, lines: list[str]) -> dict[str, Any]:
    """What an encoder's description says of its model: timm's version, the features' width, the code that builds it."""
    import timm

    uses_torch = any("torch." in line for line in lines)
    imports = ["import torch"] if uses_torch else []
    imports += ["import timm"] if any("timm.create_model" in line for line in lines) else []
    width: Any = getattr(model, "head_hidden_size", None) or model.num_features
    return {"timm": timm.__version__, "dim": int(width), "timm_code": "\n".join(imports + lines)}


def check_json(options: dict[str, Any]) -> None:
    """Refuse options that a run can't write down.

    Raises:
        UserError: it names the option.
    """
    for key, value in options.items():
        try:
            json.dumps(value)
        except TypeError as error:
            raise UserError(
                f"encoder option {key}={value!r}: only numbers, strings and lists can be written to the run; name it"
            ) from error


def _refused(name: str, error: TypeError) -> UserError:
    reason = str(error).split(".__init__() ")[-1]
    return UserError(f"encoder={name}: {reason}; drop that option or choose another model")


def _unknown(name: str) -> str:
    import timm

    known = [*own_encoders(), *SMALL_VITS, *timm.list_models()]
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.6) or timm.list_models(f"*{name}*")[:5]
    hint = f"did you mean {', '.join(near)}?" if near else "timm.list_models() names them all"
    return f"encoder={name}: no such encoder; {hint}"
