"""How large tiles are: what a network holds at a time is counted, and what fits is taken."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from selftaught.engine.method import Method
from selftaught.run.outputs import _tiles
from selftaught.run.outputs._tiles import Peak, fitting_tile
from selftaught.run.outputs.image import restore


def test_the_most_that_tensors_hold_at_a_time() -> None:
    given = torch.zeros(1000)
    with Peak() as seen:
        first = given + 1
        second = first * 2
        first.add_(1)  # in place, as views, nothing is made
        first.view(10, 100).T[3] += 2
        assert seen.now == 8000
        del first
        third = torch.cat([second, second])
        assert seen.now == 12000
        del second, third
        assert seen.now == 0
        torch.zeros(100)
    assert seen.most == 12000


class Heavy(Method):
    """Holds 64 floats for every pixel and channel at a time, besides what it makes."""

    slug, output, pixels, modalities = "heavy", "image", "float32", ("image",)
    seen: list[tuple[int, ...]]

    def deliverable(self) -> nn.Module:
        seen = self.seen

        class Net(nn.Module):
            receptive_radius = 2

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                seen.append(tuple(x.shape[-2:]))
                return x.repeat(1, 64, 1, 1)[:, : x.shape[1]].clone()

        return Net()


def test_a_picture_and_its_result_are_no_room_for_tiles() -> None:
    small, large = (_tiles._room(torch.zeros(1, 3, 10, 1).expand(1, 3, 10, 10**n), 12.0) for n in (2, 7))
    assert small >= large
    assert _tiles._room(torch.zeros(1, 3, 1, 1).expand(1, 3, 10**4, 10**5), 12.0) == 0
    thin = torch.zeros(1, 3, 1, 1).expand(1, 3, 1000, 1000)
    ample = 64 * 2**30
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_tiles.psutil, "virtual_memory", lambda: type("Free", (), {"available": ample}))
        assert _tiles._room(thin, 12.0) == _tiles._ROOM - 33 * 10**6
        assert _tiles._room(thin, 192.0) == _tiles._ROOM - 303 * 10**6


def test_tiles_fit_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    method = Heavy(channels=1).eval()
    method.seen = []
    monkeypatch.setattr(_tiles, "_room", lambda image, result: (64 + 1) * 4 * 600 * 600)
    image = torch.zeros(1, 1, 700, 900)
    assert fitting_tile(method, method.deliverable(), image) == 576  # 600 on a grid of 64
    assert method.seen == [(256, 256)]
    made = restore(method, image[0].permute(1, 2, 0).numpy())
    assert made.shape == (700, 900, 1)
    assert len(method.seen) == 5  # nothing is measured twice
    assert max(max(shape) for shape in method.seen) <= 576
    monkeypatch.setattr(_tiles, "_room", lambda image, result: 1)
    assert fitting_tile(method, method.deliverable(), image) == _tiles.LEAST
    restore(method, image[0].permute(1, 2, 0).numpy(), tile=0)
    assert method.seen[-1] == (700, 900)
