"""Splatting 20,000 Gaussians at 128 x 96 on a CPU, both ways, beside what memory alone would take.

    python benchmarks/speed/splat.py [--rounds 7]

Two floors, both over the M pairs of a pixel and a Gaussian that the pixel's tile of 4 sees:

- Memory alone: a renderer that keeps what its backward pass needs holds two numbers for each pair, alpha and what is
  left of the light, 4 bytes each. They are written once forward and read once backward: 16 M bytes.
- Array passes: plain PyTorch has no fused kernels, so each operation reads its arrays and writes its result.
  Counted from the equations, 4 bytes each: forward, the exponent (1 written), its limits, exp, the least alpha,
  1 - alpha and the running product (1 read and 1 written each), the shares (2 read, 1 written), the blend (1 read): 15.
  Backward, the shares (3), the features (1), the light (1), their product (3), its running sum (2), the rest behind
  (2), alpha / (1 - alpha) (1 read and written, 2 read and 1 written), times and less (3 each), the moments (1): 24.
  That is 156 M bytes.

The rate of memory is measured in the same round by filling two arrays of M numbers and summing them up.
"Ours" are the kernels (Numba, float32), which the renderer takes by itself where they are installed; they keep nothing
for each pair and so are not bound by either floor, which stay as they were stated before there were any. Besides: the
renderer in plain PyTorch in tiles of 4, its own choice here, and of 8 and 16 pixels, whose M is larger.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from common import compared, machine, rounds, show, store

from selftaught.networks._splat_tiles import plan_tiles
from selftaught.networks.gaussians import Gaussians, project_gaussians
from selftaught.networks.splatting import TILE, Backend, render_gaussians

COUNT, SIZE, REPEATS = 20_000, (96, 128), 2
PASSES = 4 * (15 + 24)
"""Bytes that plain array operations move for each pair, see above."""
CAMERA = torch.tensor([[120.0, 0, 64], [0, 120, 48], [0, 0, 1]])
POSE = torch.eye(4)


def scene() -> Gaussians:
    """A cloud that fills the picture, Gaussians of one to three pixels."""
    g = torch.Generator().manual_seed(0)
    means = 2 * torch.rand(COUNT, 3, generator=g) - 1
    means = means * torch.tensor([1.3, 1.0, 0.5]) + torch.tensor([0.0, 0, 3])
    parts = (
        means, torch.randn(COUNT, 4, generator=g), 0.02 * torch.rand(COUNT, 3, generator=g) + 0.01,
        0.5 * torch.rand(COUNT, generator=g) + 0.2, torch.rand(COUNT, 3, generator=g),
    )  # fmt: skip
    return Gaussians(*(part.requires_grad_() for part in parts))


def pairs(gaussians: Gaussians) -> int:
    """M: pairs of a pixel and a Gaussian that the pixel's tile sees."""
    with torch.no_grad():
        seen = project_gaussians(gaussians, CAMERA, POSE, SIZE)
        return plan_tiles(seen, gaussians.opacities, SIZE, 0.5, TILE).pairs * TILE**2


def worker(gaussians: Gaussians, backend: Backend, tile: int = 0) -> Callable[[], float]:
    """Pictures a second, forward and backward."""

    def work() -> float:
        began = time.perf_counter()
        for _ in range(REPEATS):
            for part in gaussians:
                part.grad = None
            render_gaussians(gaussians, CAMERA, POSE, SIZE, 0.5, tile=tile, backend=backend).image.sum().backward()
        return REPEATS / (time.perf_counter() - began)

    return work


def floor(count: int, touched: int = 16) -> Callable[[], float]:
    """Pictures a second if writing and reading ``touched`` bytes for each pair were all."""
    arrays = torch.empty(count), torch.empty(count)

    def work() -> float:
        began = time.perf_counter()
        for _ in range(REPEATS):
            for array in arrays:
                array.fill_(0.5)
            for array in arrays:
                array.sum()
        return REPEATS / (time.perf_counter() - began) * 16 / touched

    return work


def main(count: int) -> None:
    """All in turn; the ratios of ours to the floors are stored."""
    known, gaussians = machine(), scene()
    cells = pairs(gaussians)
    contenders = {
        "memory alone": floor(cells), "array passes": floor(cells, PASSES),
        "PyTorch, tiles of 16": worker(gaussians, "torch", 16), "PyTorch, tiles of 8": worker(gaussians, "torch", 8),
        "PyTorch": worker(gaussians, "torch", TILE), "ours": worker(gaussians, "numba"),
    }  # fmt: skip
    found = compared(rounds(contenders, count), "ours")
    show(f"splatting {COUNT} Gaussians at {SIZE[1]} x {SIZE[0]}, {cells:,} pairs", found, "pictures/s")
    what = (
        f"{COUNT} Gaussians at {SIZE[1]}x{SIZE[0]}, both ways, pictures per second; floors for {cells} pairs of pixel "
        f"and Gaussian in tiles of {TILE}: memory alone 16 bytes each (8 written, 8 read), array passes {PASSES} bytes"
    )
    store("splat", {"work": what, "machine": known, "rounds": count} | found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    main(parser.parse_args().rounds)
