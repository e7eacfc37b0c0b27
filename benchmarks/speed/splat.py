"""Splatting 20,000 Gaussians at 128 x 96 on a CPU, both ways, beside what memory alone would take.

    python benchmarks/speed/splat.py [--rounds 7]

The floor: a renderer that keeps what its backward pass needs holds two numbers, alpha and what is left, for each of the
M pairs of a pixel and a Gaussian that its tile sees, 4 bytes each. Forward they are written once and backward they are
read once: 16 M bytes. The floor's rate is measured in the same round by filling two such arrays and summing them up.
Besides: the same renderer in tiles of 16 pixels, whose M is larger.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from common import compared, machine, rounds, show, store

from selftaught.networks.gaussians import Gaussians, project_gaussians
from selftaught.networks.splatting import TILE, _plan, render_gaussians

COUNT, SIZE, REPEATS = 20_000, (96, 128), 2
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
        return len(_plan(seen, gaussians.opacities, SIZE, 0.5, TILE).gaussians) * TILE**2


def worker(gaussians: Gaussians, tile: int) -> Callable[[], float]:
    """Pictures a second, forward and backward."""

    def work() -> float:
        began = time.perf_counter()
        for _ in range(REPEATS):
            for part in gaussians:
                part.grad = None
            render_gaussians(gaussians, CAMERA, POSE, SIZE, 0.5, tile=tile, backend="torch").image.sum().backward()
        return REPEATS / (time.perf_counter() - began)

    return work


def floor(count: int) -> Callable[[], float]:
    """Pictures a second if writing and reading 8 bytes for each pair were all."""
    arrays = torch.empty(count), torch.empty(count)

    def work() -> float:
        began = time.perf_counter()
        for _ in range(REPEATS):
            for array in arrays:
                array.fill_(0.5)
            for array in arrays:
                array.sum()
        return REPEATS / (time.perf_counter() - began)

    return work


def main(count: int) -> None:
    """All in turn; the ratio of ours to the floor is stored."""
    known, gaussians = machine(), scene()
    cells = pairs(gaussians)
    contenders = {"memory alone": floor(cells), "tiles of 16": worker(gaussians, 16), "ours": worker(gaussians, TILE)}
    found = compared(rounds(contenders, count), "ours")
    show(f"splatting {COUNT} Gaussians at {SIZE[1]} x {SIZE[0]}, {cells:,} pairs", found, "pictures/s")
    what = (
        f"{COUNT} Gaussians at {SIZE[1]}x{SIZE[0]}, both ways, pictures per second; memory alone: 16 bytes for each of"
    )
    store("splat", {"work": f"{what} {cells} pairs", "machine": known, "rounds": count} | found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    main(parser.parse_args().rounds)
