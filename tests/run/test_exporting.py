"""ONNX files say truly which sizes they take."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from selftaught.errors import Remark
from selftaught.run import exporting

FREE = {2: ("height", 16, 1 << 14), 3: ("width", 16, 1 << 14)}
CARD = {"method": "none", "normalise": {}}


class Fixed(nn.Module):
    """Groups of as many numbers as it met columns at first: ``len`` gives a trace a constant."""

    def forward(self, x: Tensor) -> Tensor:
        row = torch.zeros_like(x[0, 0, 0])
        return x.flatten(1).flatten().unflatten(0, (-1, len(row))).sum(0)[None]


class OfAnySize(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(3, keepdim=True)


def sides(path: Path) -> list[object]:
    runtime = pytest.importorskip("onnxruntime")
    shape: list[object] = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).get_inputs()[0].shape
    return shape[2:]


def test_a_size_that_the_trace_takes_for_a_constant_is_told(tmp_path: Path) -> None:
    x = torch.rand(2, 3, 24, 40)
    with pytest.warns(Remark, match="inputs of 3 x 24 x 40 alone"):
        path = exporting._onnx(Fixed(), CARD, tmp_path / "fixed.onnx", x, FREE)
    assert sides(path) == [24, 40]


def test_free_sizes_stay_free(tmp_path: Path) -> None:
    path = exporting._onnx(OfAnySize(), CARD, tmp_path / "free.onnx", torch.rand(2, 3, 24, 40), FREE)
    assert sides(path) == ["height", "width"]
