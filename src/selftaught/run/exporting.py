"""Exports that need no selftaught: safetensors with a recipe, a timm folder, ONNX (checked against the run), a LoRA."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from selftaught._paths import part_of
from selftaught.engine.method import Method
from selftaught.errors import Remark, UserError, first_line, require, unwritten
from selftaught.networks import Adapted
from selftaught.run.layout import write_json, write_tensors, write_text

FORMATS = ("safetensors", "timm", "onnx", "peft")
_TOLERANCE = 1e-4

_TIMM_EXAMPLE = '''"""Loads the exported encoder with timm alone; embeds (N, {channels}, {size}, {size}) in [0, 1]."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

here = Path(__file__).parent
card = json.loads((here / "config.json").read_text())

{code}
model.load_state_dict(load_file(here / "model.safetensors"))
model.eval()

mean = torch.tensor(card["normalise"]["mean"])[:, None, None]
std = torch.tensor(card["normalise"]["std"])[:, None, None]


def embed(images):
    with torch.inference_mode():
        return model((images - mean) / std)


if __name__ == "__main__":
    print(embed(torch.rand(2, {channels}, {size}, {size})).shape)
'''


def export(
    method: Method,
    card: dict[str, Any],
    form: str,
    out: Path,
    *,
    example: Tensor,
    free: dict[int, tuple[str, int, int]],
) -> Path:
    """Write the deliverable of a run in a form that loads without selftaught.

    Args:
        method: the trained method.
        card: what encoder.json says of it.
        form: safetensors, timm, onnx, or peft (a LoRA by itself, to be put into the network that it was trained in).
        out: file (safetensors, onnx) or folder (timm, peft) to write.
        example: a batch that the deliverable takes (onnx).
        free: axes besides the batch that may have any size, as axis -> (name, least, most) (onnx).

    Raises:
        UserError: unknown form; onnx for a network of texts, or one that the method says can't be traced; timm for a
            network that timm does not have; peft for one without a LoRA; an output that differs by over 1e-4.
    """
    if form not in FORMATS:
        raise UserError(f"--format {form}: it may be {', '.join(FORMATS)}")
    if form == "peft":
        return _peft(method.deliverable(), out)
    if form == "onnx" and method.untraceable:
        raise UserError(f"--format onnx: {method.untraceable}")
    if form == "onnx" and card["modality"] == "text":
        raise UserError(
            "--format onnx: the network takes what its vocabulary makes of texts, which such a file can't do; use "
            "safetensors, or selftaught.load(RUN) in Python"
        )
    network, spec = method.exported()
    module, card = network.eval().cpu().float(), card | {"build": spec}
    if form == "onnx":
        return _onnx(module, card, out, example, free)
    tensors, code = _bare(module, card)
    if form == "timm":
        if code is None:
            raise UserError(f"--format timm: {card['build']['name']} is not a timm network; use safetensors or onnx")
        return _timm(tensors, code, card, out)
    out = _with_suffix(out, ".safetensors")
    write_tensors(out, tensors, metadata={"selftaught": json.dumps(card)})
    write_json(out.with_suffix(".json"), card)
    return out


def _with_suffix(out: Path, suffix: str) -> Path:
    out = out if out.suffix == suffix else out.with_name(out.name + suffix)
    _folder(out.parent)
    return out


def _folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritten(out, error) from error


def _bare(module: nn.Module, card: dict[str, Any]) -> tuple[dict[str, Tensor], str | None]:
    """State dict under the names that timm itself has, and the code that builds the network."""
    code = card["build"].get("timm_code")
    inner = module.model if code is not None and isinstance(module.model, nn.Module) else module
    return {k: v.detach().contiguous() for k, v in inner.state_dict().items()}, code


def _timm(tensors: dict[str, Tensor], code: str, card: dict[str, Any], out: Path) -> Path:
    _folder(out)
    write_tensors(out / "model.safetensors", tensors)
    write_json(out / "config.json", card | _for_timm(card))
    text = _TIMM_EXAMPLE.format(code=code, channels=card["channels"], size=card["image_size"])
    write_text(out / "load.py", text)
    return out


def _peft(module: nn.Module, out: Path) -> Path:
    """A folder that ``peft.PeftModel.from_pretrained(network, FOLDER)`` reads."""
    if not isinstance(module, Adapted):
        raise UserError("--format peft: this run has no LoRA; train glare with --adapter lora, or take safetensors")
    config, tensors = module.peft()
    _folder(out)
    write_tensors(out / "adapter_model.safetensors", {k: v.cpu().contiguous() for k, v in tensors.items()})
    write_json(out / "adapter_config.json", config)
    return out


def _for_timm(card: dict[str, Any]) -> dict[str, Any]:
    """What ``timm.create_model("local-dir:FOLDER", pretrained=True)`` reads; nothing for a network changed by hand."""
    import timm

    spec, normalise = card["build"], card.get("normalise", {})
    if not timm.is_model(spec["name"]) or spec.get("stem") == "small":
        return {}
    size = [spec["channels"], card["image_size"], card["image_size"]]
    return {
        "architecture": spec["name"],
        "num_classes": 0,
        "num_features": spec["dim"],
        "model_args": {"in_chans": spec["channels"], "num_classes": 0} | spec.get("kwargs", {}),
        "pretrained_cfg": {
            "input_size": size,
            "num_classes": 0,
            "mean": normalise.get("mean"),
            "std": normalise.get("std"),
            "fixed_input_size": "img_size" in spec.get("kwargs", {}),
        },
    }


class _Plain(nn.Module):
    """The deliverable with one positional input, as ONNX wants it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)


def _onnx(module: nn.Module, card: dict[str, Any], out: Path, x: Tensor, free: dict[int, tuple[str, int, int]]) -> Path:
    require("onnx", "onnx")
    require("onnxruntime", "onnx")
    require("onnxscript", "onnx")
    out = _with_suffix(out, ".onnx")
    part = part_of(out)
    with torch.no_grad():
        expected = module(x).numpy()
    axes = {0: ("batch", 1, 1 << 16)} | free
    dynamic: Any = {axis: torch.export.Dim(name, min=low, max=high) for axis, (name, low, high) in axes.items()}
    try:
        _quiet_export(_Plain(module).eval(), x, part, dynamic)
        if free and not _holds_elsewhere(part, module, x, free):
            _quiet_export(_Plain(module).eval(), x, part, {0: dynamic[0]})
            sides = " x ".join(map(str, x.shape[1:]))
            told = f"the ONNX file takes inputs of {sides} alone: PyTorch could not keep their size free"
            warnings.warn(told, Remark, stacklevel=3)
        error = _sealed(part, card, x.numpy(), expected)
        if not error < _TOLERANCE:
            raise UserError(f"{out}: ONNX output differs from the model's by {error:.1e}; use --format safetensors")
        part.replace(out)
    except torch.onnx.errors.OnnxExporterError as error:
        why = first_line(error.__cause__ or error)
        raise UserError(f"--format onnx: PyTorch can't trace {card['method']} ({why}); use safetensors") from error
    except OSError as error:
        raise unwritten(out, error) from error
    finally:
        part.unlink(missing_ok=True)
    return out


def _holds_elsewhere(path: Path, module: nn.Module, x: Tensor, free: dict[int, tuple[str, int, int]]) -> bool:
    """Whether an ONNX file gives what the network gives at another size of the axes that it leaves free.

    A trace can take a size for a constant though it declares the axis free; such a file fails, or is wrong, elsewhere.
    """
    runtime: Any = require("onnxruntime", "onnx")
    for axis, (_, least, most) in free.items():
        other = min(x.shape[axis] + 32, most) if x.shape[axis] < most else max(x.shape[axis] - 32, least)
        x = x.index_select(axis, torch.arange(other) % x.shape[axis])
    with torch.no_grad():
        expected = module(x).numpy()
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    told = runtime.capi.onnxruntime_pybind11_state
    try:
        (found,) = session.run(None, {"input": x.numpy()})
    except (told.RuntimeException, told.InvalidArgument, told.Fail):  # sizes that don't fit, inside or at the door
        return False
    return found.shape == expected.shape and _apart(found, expected) < _TOLERANCE


def _apart(found: Any, expected: Any) -> float:
    """How far an output lies from what is expected, relative to that."""
    return float(np.abs(found - expected).max() / max(1.0, float(np.abs(expected).max())))


def _sealed(path: Path, card: dict[str, Any], given: Any, expected: Any) -> float:
    """Write into an ONNX file what it is of; how far its output lies from the network's, relative to that."""
    onnx: Any = require("onnx", "onnx")
    runtime: Any = require("onnxruntime", "onnx")
    model = onnx.load(path)
    for key, value in (("selftaught", json.dumps(card)), ("normalise", json.dumps(card["normalise"]))):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.save(model, path)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    if isinstance(fixed := session.get_inputs()[0].shape[0], int):
        told = f"the ONNX file takes batches of {fixed} alone: PyTorch could not keep their size free"
        warnings.warn(told, Remark, stacklevel=4)
    (found,) = session.run(None, {"input": given})
    return _apart(found, expected)


def _quiet_export(module: nn.Module, x: Tensor, out: Path, dynamic: Any) -> None:
    import contextlib
    import io
    import logging

    for part in ("torch.onnx", "torch.fx"):
        logging.getLogger(part).setLevel(logging.ERROR)
    aside = io.StringIO()  # of what can't be traced PyTorch prints the whole graph
    with warnings.catch_warnings(), contextlib.redirect_stdout(aside), contextlib.redirect_stderr(aside):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (x,),
            str(out),
            input_names=["input"],
            output_names=["output"],
            dynamic_shapes={"x": dynamic},
            dynamo=True,
            external_data=False,
        )
