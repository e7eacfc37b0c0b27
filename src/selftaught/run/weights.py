"""Weights from elsewhere to start an encoder from: a file, a model of timm's, a repository of Hugging Face.

They are found by their names, whatever stands in front of these (``module.``, ``backbone.`` ...), and fitted to the
encoder: first layers to its number of channels, position embeddings and patch embeddings to its image and patch size.
What the encoder has and the file lacks is an error, never left at random. Nothing is unpickled but tensors.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from selftaught._words import typed
from selftaught.engine.method import Method
from selftaught.errors import UserError, first_line
from selftaught.networks import Encoder
from selftaught.networks.hub import hub

_FILES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")
_WRAPPERS = ("state_dict", "model", "teacher", "student", "encoder", "module", "net", "weights")


def foreign(init: str) -> bool:
    """Whether ``--init`` names weights from elsewhere, not a run."""
    return init.startswith(("timm:", "hf:")) or (Path(init).suffix in _FILES and Path(init).is_file())


def hint(init: str, option: str = "--init") -> str:
    """What else the option takes, where this looks like a model's name."""
    import timm

    return f"; did you mean {option} timm:{init}?" if timm.is_model(init) else ""


def encoder_options(init: str) -> dict[str, Any]:
    """The options of an encoder that these weights fit: a timm model's name; of a file nothing is known."""
    if not init.startswith(("timm:", "hf:")):
        return {}
    name, rest = init.partition(":")[2], {"stem": "standard"}
    if init.startswith("timm:") and ":" not in name:
        return {"encoder": name} | rest
    return {"encoder": _of_timm(init).default_cfg["architecture"]} | rest


def load_into(method: Method, init: str) -> None:
    """Give a method's encoder weights from elsewhere.

    Args:
        method: a method with an image encoder.
        init: ``timm:NAME`` (or ``timm:local-dir:FOLDER``), ``hf:REPO``, or a file.

    Raises:
        UserError: weights out of reach, damaged, of another network, or a method without an image encoder.
    """
    target = getattr(method, "encoder", None)
    if not isinstance(target, Encoder):
        raise UserError(f"--init {typed(init)}: {method.slug} has no image encoder to give weights to; use --init RUN")
    given = _of_timm(init).state_dict() if init.startswith(("timm:", "hf:")) else read_weights(Path(init))
    target.model.load_state_dict(fitted(given, target.model, f"--init {typed(init)}"))


def _of_timm(init: str) -> Any:
    """The pretrained model.

    Raises:
        UserError: no such model, or out of reach.
    """
    import timm

    where, _, name = init.partition(":")
    full = f"hf-hub:{name}" if where == "hf" else name
    if ":" not in full and not timm.is_model(full):
        near = difflib.get_close_matches(full, timm.list_models(pretrained=True), 3)
        raise UserError(f"--init {typed(init)}: timm has no such model{f'; did you mean {near[0]}?' if near else ''}")
    try:
        with hub():
            return timm.create_model(full, pretrained=True, num_classes=0)
    except Exception as error:  # whatever a hub's client raises when it can't reach or read the weights
        reason = first_line(error)
        raise UserError(
            f"--init {typed(init)}: the weights can't be had ({reason}); go online once, or give a file"
        ) from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Every tensor of a file by its name; what a training script wraps around them is taken off.

    Args:
        path: .safetensors, or what ``torch.save`` writes.

    Raises:
        UserError: it can't be read, or holds other things than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, SafetensorError, _unpickling()) as error:
        reason = first_line(error)
        raise UserError(f"{path}: no weights that can be read safely ({reason})") from error
    while isinstance(content, Mapping) and not _tensors(content):
        inner = next((content[name] for name in _WRAPPERS if isinstance(content.get(name), Mapping)), None)
        if inner is None:
            break
        content = inner
    found = _tensors(content)
    if not found:
        raise UserError(f"{path}: holds no weights by name; save a state_dict")
    return found


def _unpickling() -> type[Exception]:
    from pickle import UnpicklingError

    return UnpicklingError


def _tensors(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def fitted(given: Mapping[str, Tensor], model: Any, what: str) -> dict[str, Tensor]:
    """A state dict for a timm model from weights of the same network under any prefix, of other sizes and channels.

    Args:
        given: tensors by name.
        model: the timm module.
        what: names the weights in errors.

    Raises:
        UserError: a weight that the model has is missing, or has another shape.
    """
    from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

    own = model.state_dict()
    prefix = _prefix(given, own)
    found = {name.removeprefix(prefix): value for name, value in given.items() if name.startswith(prefix)}
    if isinstance(model, VisionTransformer):
        found = checkpoint_filter_fn(found, model)
    result = {}
    for name, value in own.items():
        if name not in found and name.endswith("num_batches_tracked"):
            result[name] = value
            continue
        if name not in found:
            raise UserError(f"{what}: has no {name}; it is of another network: use the same --encoder and --stem")
        result[name] = _channels(found[name], value)
        if result[name].shape != value.shape:
            raise UserError(
                f"{what}: {name} has shape {tuple(found[name].shape)}, the encoder's {tuple(value.shape)}; "
                "use the same --encoder and --stem"
            )
    return result


def _prefix(given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """What stands before the encoder's names in a file: the prefix under which most of them are found."""
    first = next(iter(own))
    candidates = {name.removesuffix(first) for name in given if name.endswith(first)} | {""}
    return max(sorted(candidates), key=lambda prefix: sum(prefix + name in given for name in own))


def _channels(given: Tensor, wanted: Tensor) -> Tensor:
    """A first convolution for another number of channels, as timm adapts one of three channels."""
    from timm.models import adapt_input_conv

    conv = given.dim() == 4 and wanted.dim() == 4 and given.shape[1] == 3 != wanted.shape[1]
    if conv and given.shape[2:] == wanted.shape[2:] and given.shape[0] == wanted.shape[0]:
        return adapt_input_conv(wanted.shape[1], given)
    return given
