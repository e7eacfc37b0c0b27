"""Warping two neighbours onto a frame with their photometric error at 640 x 192, both ways, against a textbook.

    python benchmarks/speed/warp.py [--rounds 7]

The textbook form back-projects every pixel to a point, projects the points, samples, and takes SSIM by five average
poolings, each a module of its own, as most code for depth from video does. Gradients go to depth and motion.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from common import compared, machine, rounds, show, store
from torch import Tensor, nn

from selftaught.networks import backproject, intrinsics_matrix, pose_matrix, project, warp
from selftaught.objectives import photometric_error, ssim_statistics

BATCH, HEIGHT, WIDTH, REPEATS = 4, 192, 640, 3


class TextbookSSIM(nn.Module):
    """Five average poolings of reflected pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.pad = nn.AvgPool2d(3, 1), nn.ReflectionPad2d(1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = self.pad(x), self.pad(y)
        mx, my = self.pool(x), self.pool(y)
        sx, sy = self.pool(x**2) - mx**2, self.pool(y**2) - my**2
        sxy = self.pool(x * y) - mx * my
        top = (2 * mx * my + 0.01**2) * (2 * sxy + 0.03**2)
        return ((1 - top / ((mx**2 + my**2 + 0.01**2) * (sx + sy + 0.03**2))) / 2).clamp(0, 1)


def textbook(frames: Tensor, target: Tensor, depth: Tensor, camera: Tensor, moves: list[Tensor]) -> Tensor:
    """Points, pixels, samples, errors, one after the other."""
    ssim, errors = TextbookSSIM(), []
    for frame, move in zip(frames, moves, strict=True):
        points = backproject(depth, torch.linalg.inv(camera))
        grid = project(points, camera, move, HEIGHT, WIDTH)
        seen = F.grid_sample(frame, grid, padding_mode="border", align_corners=True)
        absolute = (seen - target).abs().mean(1, True)
        errors.append(0.85 * ssim(seen, target).mean(1, True) + 0.15 * absolute)
    return torch.cat(errors, 1).amin(1).mean()


def ours(frames: Tensor, target: Tensor, depth: Tensor, camera: Tensor, moves: list[Tensor]) -> Tensor:
    """One pass to the grid, the target's statistics once."""
    known = ssim_statistics(target)
    seen = (warp(frame, depth, camera, move) for frame, move in zip(frames, moves, strict=True))
    return torch.cat([photometric_error(one, known) for one in seen], 1).amin(1).mean()


def worker(function: Callable[..., Tensor]) -> Callable[[], float]:
    """Frames a second, forward and backward."""
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(BATCH, 3, HEIGHT, WIDTH, generator=generator)
    frames = torch.rand(2, BATCH, 3, HEIGHT, WIDTH, generator=generator)
    depth = (1 + 3 * torch.rand(BATCH, 1, HEIGHT, WIDTH, generator=generator)).requires_grad_()
    angle, shift = ((scale * torch.randn(2, BATCH, 3, generator=generator)).requires_grad_() for scale in (0.01, 0.05))
    camera = intrinsics_matrix(torch.tensor([[0.58, 1.92, 0.5, 0.5]]).repeat(BATCH, 1), HEIGHT, WIDTH)

    def work() -> float:
        began = time.perf_counter()
        for _ in range(REPEATS):
            moves = [pose_matrix(a, t) for a, t in zip(angle, shift, strict=True)]
            function(frames, target, depth, camera, moves).backward()
        return REPEATS * BATCH / (time.perf_counter() - began)

    return work


def main(count: int) -> None:
    """Both forms in turn; the ratio is stored."""
    known = machine()
    found = compared(rounds({"textbook": worker(textbook), "ours": worker(ours)}, count), "ours")
    show(f"warp and photometric error, {WIDTH} x {HEIGHT}, two neighbours", found, "frames/s")
    what = f"depth from video: two neighbours warped onto a frame and their error, both ways, {WIDTH}x{HEIGHT}"
    store("warp", {"work": f"{what}, frames per second", "machine": known, "rounds": count} | found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    main(parser.parse_args().rounds)
