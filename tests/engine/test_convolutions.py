"""bf16 gradients of convolutions over small maps: finite and right on a CPU, in a method and alone."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from selftaught import methods, networks
from selftaught.engine.convolutions import _Padding, mend_convolutions


@pytest.fixture(autouse=True)
def unwritten_is_nan() -> Iterator[None]:
    """Memory that a kernel forgets to write holds NaN."""
    was = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(was[0])
    torch.utils.deterministic.fill_uninitialized_memory = was[1]


CASES = [
    (nn.Conv3d, (3, 3, 3), 1, (2, 4, 4)),  # the last stage of an R3D-18 that sees 16 frames
    (nn.Conv3d, (3, 1, 1), 1, (2, 5, 5)),  # the temporal half of an R(2+1)D
    (nn.Conv3d, (5, 3, 3), 1, (3, 4, 4)),
    (nn.Conv3d, (5, 3, 3), 2, (4, 4, 4)),
    (nn.Conv3d, (7, 3, 3), 1, (4, 4, 4)),
    (nn.Conv3d, (3, 3, 3), 1, (1, 4, 4)),
    (nn.Conv3d, (3, 3, 3), 1, (4, 4, 4)),
    (nn.Conv2d, (3, 3), 2, (1, 1)),
    (nn.Conv1d, (3,), 2, (1,)),
    (nn.Conv1d, (9,), 1, (4,)),
]


@pytest.mark.parametrize(("kind", "kernel", "stride", "size"), CASES)
def test_the_gradient_is_that_of_float32(kind: Any, kernel: Any, stride: int, size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    conv = kind(32, 16, kernel, stride, padding=tuple(k // 2 for k in kernel))
    network = nn.Sequential(copy.deepcopy(conv))
    mend_convolutions(network)
    assert list(network.state_dict()) == ["0.weight", "0.bias"]
    assert isinstance(network[0], kind)
    x = torch.randn(2, 32, *size)
    exact = conv(x)
    assert torch.equal(network(x), exact)
    direction = torch.randn_like(exact)
    exact.backward(direction)
    with torch.autocast("cpu", torch.bfloat16):
        found = copy.deepcopy(network)(x)
        made = network(x)
    assert made.dtype is torch.bfloat16
    assert torch.equal(found, made)
    made.backward(direction.bfloat16())
    for name, wanted in conv.named_parameters():
        error = (getattr(network[0], name).grad - wanted.grad).norm() / wanted.grad.norm()
        assert error < 0.01, name


def test_other_modules_and_padding_of_other_kinds_are_left_alone() -> None:
    class Own(nn.Conv3d):
        def _conv_forward(self, x: torch.Tensor, weight: Any, bias: Any) -> torch.Tensor:
            return 2 * super()._conv_forward(x, weight, bias)

    network = nn.Sequential(Own(3, 3, 3), nn.Conv3d(3, 3, 3, padding_mode="replicate", padding=1), nn.Conv3d(3, 3, 1))
    kinds = [type(module) for module in network]
    mend_convolutions(network)
    assert [type(module) for module in network] == kinds


def test_heads_of_two_frames_learn_in_bf16() -> None:
    """PRP's heads look at two frames in its laptop preset."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"frames": 8, "image_size": 32, "augment": "none", "encoder": "cnn-small-video"}
    method = methods.get("prp")(channels=3, width=16, rates=3, **options)
    method.configure_model()
    batch = {"clip": torch.randn(4, 3, 24, 32, 32), "clip.rate": torch.tensor([0, 1, 2, 1])}
    exact = gradients(method, method.loss(batch)["loss"])
    with torch.autocast("cpu", torch.bfloat16):
        loss = method.loss(batch)["loss"]
    for name, found in gradients(method, loss).items():
        assert (found - exact[name]).norm() / exact[name].norm() < 0.3, name


def test_a_resnet3d_18_learns_in_bf16() -> None:
    """At eight frames its third stage sees two. Its convolutions are of classes of torchvision's own."""
    torch.manual_seed(0)
    encoder = networks.video_network("resnet3d-18", channels=3).train()
    mend_convolutions(encoder)
    small = [m for m in encoder.modules() if isinstance(m, nn.Conv3d) and m.kernel_size == (3, 3, 3)]
    assert len(small) == 16
    assert all(isinstance(conv, _Padding) for conv in small)
    with torch.autocast("cpu", torch.bfloat16):
        loss = encoder(torch.randn(2, 3, 8, 32, 32)).float().square().mean()
    found = gradients(encoder, loss)
    assert len(found) > 50
    assert all(torch.isfinite(grad).all() for grad in found.values())


def test_a_mended_network_is_copied_and_pickled() -> None:
    network = networks.video_network("resnet3d-18", channels=3).eval()
    mend_convolutions(network)
    x = torch.randn(1, 3, 8, 16, 16)
    for again in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert sum(isinstance(module, _Padding) for module in again.modules()) == 17
        with torch.no_grad():
            assert torch.equal(again(x), network(x))


def gradients(network: nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    network.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
