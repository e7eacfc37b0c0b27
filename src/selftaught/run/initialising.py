"""Starting from another run's weights: which encoder it has, and how its weights get into a new method."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from selftaught._words import typed
from selftaught.data import Source
from selftaught.engine.ema import MovingAverage
from selftaught.engine.method import Method
from selftaught.errors import UserError
from selftaught.networks import DualEncoder, Encoder
from selftaught.networks.open_clips import OPEN_CLIP, OpenClipPlan, open_clip_dual, open_clip_plan
from selftaught.networks.vits import short_name
from selftaught.run import weights
from selftaught.run.layout import Layout


def encoder_options(path: str | Path, *, texts: bool = False) -> dict[str, Any]:
    """The options by which a method builds the encoder of the run in ``path``: its name, stem and image size.

    With ``texts`` those of its text tower and of the space where both meet, too, where the run has them.

    Empty where the folder holds bare weights, or a model that is no encoder. A timm model's name where that is given.
    """
    if str(path).startswith(OPEN_CLIP):
        return _open_clip_options(open_clip_plan(str(path)), texts)
    if weights.foreign(str(path)):
        return weights.encoder_options(str(path))
    spec = Layout(path).read_card().get("build", {})
    words = _text_options(spec) if texts else {}
    spec = spec.get("encoder") if isinstance(spec.get("encoder"), dict) else spec
    names = {"name": "encoder", "stem": "stem", "image_size": "image_size"}
    found = {option: spec[key] for key, option in names.items() if spec.get(key)} if "stem" in spec else {}
    if "encoder" in found:
        found["encoder"] = short_name(found["encoder"], spec.get("kwargs", {}))
    return found | words


def _open_clip_options(plan: OpenClipPlan, texts: bool) -> dict[str, Any]:
    image = {"encoder": plan.encoder, "stem": "standard", "image_size": plan.image_size}
    if not texts:
        return image
    words = {name: plan.text[key] for name, key in _TEXT.items()}
    return image | words | {"dim": plan.dim, "tokeniser": "clip"}


_TEXT = {
    "text_width": "width", "text_heads": "heads", "text_layers": "layers", "context": "context",
    "text_activation": "activation",
}  # fmt: skip
"""What methods call the text tower's options, and what its ``spec`` calls them."""


def _text_options(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The options by which a method builds the text tower of a run of images and texts; empty for any other run."""
    if spec.get("name") != "dual-encoder":
        return {}
    text = spec["text"]
    found = {option: text[key] for option, key in _TEXT.items() if key in text}
    return found | {"dim": spec["dim"], "tokeniser": spec["tokeniser"]}


def same_pixels(init: str, channels: int) -> dict[str, Any]:
    """How pixels are normalised in the model of images and texts that a run starts from; empty for any other start.

    A fine-tuned model must see pictures as the one that it began as saw them. For other numbers of channels than 3 a
    model of open_clip's mean and deviation are averaged.
    """
    if init.startswith(OPEN_CLIP):
        return _clip_pixels(open_clip_plan(init), channels)
    if weights.foreign(init) or Layout(init).read_card().get("output") != "image-text":
        return {}
    known = Layout(init).read_config()["data"]
    return {key: known[key] for key in ("mean", "std", "value_range") if key in known}


def _clip_pixels(plan: OpenClipPlan, channels: int) -> dict[str, Any]:
    several = {"mean": list(plan.mean), "std": list(plan.std)}
    if channels != len(plan.mean):
        several = {name: [sum(values) / len(values)] * channels for name, values in several.items()}
    return several | {"value_range": None}


def interpolate(method: Method, start: Method, share: float) -> None:
    """Weights between two networks: ``share`` of what was trained, the rest of what it started from.

    Args:
        method: trained; its deliverable is changed.
        start: of the same networks, as training began.
        share: 0 (the start) .. 1 (as trained).
    """
    trained, began = method.deliverable().state_dict(), start.deliverable().state_dict()
    mixed = {
        name: torch.lerp(began[name].to(value), value, share) if value.is_floating_point() else value
        for name, value in trained.items()
    }
    method.deliverable().load_state_dict(mixed)


def transformed(kind: type[Method], init: str | Path | None) -> dict[str, Any] | None:
    """The configuration of the run that a method changes; None for one that changes none, or a model of timm's.

    Raises:
        UserError: no run is named, or there is none.
    """
    if not kind.transforms:
        return None
    if not init:
        more = "" if kind.output == "classes" else " (an encoder may also be timm:NAME, hf:REPO or a .safetensors file)"
        raise UserError(f"{kind.slug} changes a trained model: give it with --init RUN{more}")
    if str(init).startswith(OPEN_CLIP):
        return _of_open_clip(str(init), kind)
    if weights.foreign(str(init)):
        return None
    if not Path(init).exists():
        raise UserError(f"--init {typed(init)}: no such run folder{weights.hint(str(init))}")
    return Layout(init).read_config()


def _of_open_clip(init: str, kind: type[Method]) -> dict[str, Any]:
    """A model of open_clip, told as a run is."""
    data = {"channels": 3} | _clip_pixels(open_clip_plan(init), 3)
    options = {"name": init.partition(":")[2]}
    settings = {"data": kind.default_data, "seed": 0}
    return {"method": "open_clip", "options": options, "settings": settings, "data": data}


def _classifies(slug: str) -> bool:
    from selftaught import methods

    return methods.get(slug).output == "classes"


def original_facts(kind: type[Method], original: Mapping[str, Any], source: Source, *, same: bool) -> dict[str, Any]:
    """What stays of the transformed run's facts whatever the data: how pixels are normalised, and its classes.

    Args:
        kind: the method.
        original: the run's configuration.
        source: the samples to learn from now.
        same: whether they are to be those that the run learnt from.

    Raises:
        UserError: they are others, or of other classes or channels.
    """
    known, name = original["data"], original["settings"].get("out") or "the run"
    theirs = original["method"] == "open_clip"
    if same and not theirs and source.fingerprint() not in known.get("fingerprints", {}).values():
        raise UserError(
            f"{source.name}: not the samples that {name} learnt from (their files, names, order or labels changed); "
            "name the data with --data"
        )
    if known["channels"] != source.channels and source.channels is not None:
        raise UserError(f"{source.name} has {source.channels} channels, {name} learnt from {known['channels']}")
    kept = {key: known[key] for key in ("mean", "std", "value_range") if key in known}
    if kind.output != "classes" or theirs or not _classifies(original["method"]):
        return kept
    if source.labels is not None and source.classes != known.get("classes"):
        raise UserError(f"{source.name}: its classes are not those of {name}; use the same class folders")
    return kept | {key: known[key] for key in ("classes", "class_count") if key in known}


def start_from(method: Method, init: str) -> None:
    """Load weights to start from, and let every momentum copy begin as the network that it follows.

    Args:
        method: the method, its networks built.
        init: a finished run (all that it delivers where that fits, else its encoder's weights), or weights from
            elsewhere (see :mod:`selftaught.run.weights`). The first layer is fitted to other channels, positions of
            transformers to another image size.

    Raises:
        UserError: no finished run there, or an encoder of another shape.
    """
    if init.startswith(OPEN_CLIP):
        if method.transforms:
            return  # the method builds it with its weights
        _from_open_clip(method, init)
    elif weights.foreign(init):
        weights.load_into(method, init)
    else:
        _from_run(method, Path(init))
    for module in method.modules():
        if isinstance(module, MovingAverage):
            module.restart()


def _from_open_clip(method: Method, init: str) -> None:
    """Both towers, or the image tower alone where the method knows no words."""
    target, what = _dual(method), f"--init {typed(init)}"
    if target is None and not isinstance(getattr(method, "encoder", None), Encoder):
        raise UserError(f"{what}: {method.slug} has no image encoder to give weights to; use --init RUN")
    given = open_clip_dual(init)
    if target is None:
        tower: Any = method.encoder
        tower.model.load_state_dict(weights.fitted(given.image.model.state_dict(), tower.model, what))  # type: ignore[union-attr]
    else:
        _take_dual(method, given.state_dict(), given.spec() | {"tokeniser": "clip"}, what)


def _dual(method: Method) -> DualEncoder | None:
    """The two towers that a method trains; None where it has none."""
    found = method.deliverable()
    return found if isinstance(found, DualEncoder) else None


def _take_dual(method: Any, given: Mapping[str, Tensor], spec: Mapping[str, Any], what: str) -> None:
    """Both towers, their global heads and their scale; heads that a start lacks begin anew.

    Raises:
        UserError: towers or heads of another shape, texts made numbers of in another way.
    """
    target: Any = _dual(method)
    own = target.spec() | {"tokeniser": method.config.tokeniser}
    alike = [(own["tokeniser"], spec["tokeniser"], "tokeniser")]
    alike += [(own["text"][key], spec["text"].get(key), name) for name, key in _TEXT.items() if name != "context"]
    for mine, theirs, name in alike:
        if theirs is not None and mine != theirs:
            raise UserError(f"{what}: its {name} is {theirs}, not {mine}; leave out --{name.replace('_', '-')}")
    parts = {name: value for name, value in given.items() if not name.startswith("image.")}
    place, context = "text.positional_embedding", target.text.context
    if context > len(parts[place]):
        raise UserError(f"{what}: reads texts of {len(parts[place])} tokens at most; use --context {len(parts[place])}")
    parts[place] = parts[place][:context]
    wanted = {name: value for name, value in target.state_dict().items() if not name.startswith("image.")}
    for name, value in wanted.items():
        if name.startswith(("text.", "z_")) or name == "scale":
            if name not in parts or parts[name].shape != value.shape:
                raise UserError(f"{what}: {name} has another shape; leave out options of towers, heads and --dim")
        elif name not in parts or parts[name].shape != value.shape:
            parts[name] = value
    target.image.model.load_state_dict(weights.fitted(_part(given, "image.model."), target.image.model, what))
    target.load_state_dict({name: parts[name] for name in wanted}, strict=False)


def _part(given: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in given.items() if name.startswith(prefix)}


def _from_run(method: Method, path: Path) -> None:
    file = Layout(path).weights
    if not file.exists():
        raise UserError(f"--init {typed(path)}: no finished run there, and no file of weights{weights.hint(str(path))}")
    given: Mapping[str, Tensor] = load_file(file)
    if method.begins_from(given):
        return
    target = method.deliverable()
    spec = Layout(path).read_card().get("build", {})
    if _dual(method) is not None and spec.get("name") == "dual-encoder":
        _take_dual(method, given, spec, f"--init {typed(path)}")
        return
    if method.output != "image" and not _fits(target, given):
        target, given = getattr(method, "encoder", target), _encoder_weights(path, given)
    if _fits(target, given):
        target.load_state_dict(given)
    elif isinstance(encoder := getattr(method, "encoder", None), Encoder) and method.output != "image":
        encoder.model.load_state_dict(weights.fitted(given, encoder.model, f"--init {typed(path)}"))
    else:
        raise UserError(f"--init {typed(path)}: its encoder has another shape; use the same --encoder")


def _fits(target: nn.Module, given: Mapping[str, Tensor]) -> bool:
    own = target.state_dict()
    return own.keys() == given.keys() and all(own[name].shape == given[name].shape for name in own)


def _encoder_weights(path: Path, given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The encoder's part of what a run of classes or of images and texts delivers; others deliver nothing else."""
    from selftaught.run import load

    if Layout(path).read_card().get("output") not in ("classes", "image-text"):
        return given
    found = load(path).method.encoder
    return found.state_dict() if isinstance(found, nn.Module) else given
