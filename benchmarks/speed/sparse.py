"""The sparse U-Net against the same network of dense convolutions at 5 % occupancy, forward and backward on a CPU.

    python benchmarks/speed/sparse.py [--rounds 5]

The grid has 48^3 places, of which the surfaces of a room and some balls fill a twentieth. Both networks have the same
layers and widths; the dense one computes the empty places too. Then the peak memory of a step on 25,000, 50,000 and
100,000 points, each in a process of its own: linear in the points, if the last two differences are as one to two.

Where spconv is installed, the same network of its layers runs beside, on the CPU. Its wheel without CUDA installs by

    pip install --no-deps spconv cumm pccm ccimport fire lark portalocker termcolor pybind11 ninja

and computes with its own (Native) algorithm alone; it asks for CUDA's current stream even then, which is answered with
0 here. MinkowskiEngine and torchsparse bring no wheel; ocnn and fvdb, not tried, have other layers or want CUDA.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import torch
from common import compared, machine, rounds, show, store
from torch import Tensor, nn
from torch.nn.functional import gelu

from selftaught.networks import HUNet, pyramid, voxelise

SIDE, SHARE, WIDTHS, SIZES = 48, 0.05, (32, 64, 96), (25_000, 50_000, 100_000)


def surfaces() -> Tensor:
    """Places (V, 4) on the floor, two walls and balls of one scene, a twentieth of the grid."""
    generator = torch.Generator().manual_seed(0)
    grid = torch.cartesian_prod(*[torch.arange(SIDE)] * 3)
    on = (grid[:, 2] == 0) | (grid[:, 0] == 0)
    while on.float().mean() < SHARE:
        centre, radius = torch.rand(3, generator=generator) * SIDE, 4 + 6 * torch.rand(1, generator=generator)
        on |= ((grid - centre).norm(dim=1) - radius).abs() < 0.6
    place = grid[on]
    return torch.cat((torch.zeros(len(place), 1, dtype=torch.long), place), 1)


class DenseBlock(nn.Module):
    """A residual block of two dense convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(width, width, 3, padding=1, bias=False)
        self.second = nn.Conv3d(width, width, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(gelu(self.first(x)))


class DenseUNet(nn.Module):
    """The same levels, widths and blocks on all places of the grid."""

    def __init__(self) -> None:
        super().__init__()
        count = len(WIDTHS)
        self.stem = nn.Conv3d(6, WIDTHS[0], 1, bias=False)
        self.down = nn.ModuleList(nn.Conv3d(WIDTHS[k], WIDTHS[k + 1], 2, 2) for k in range(count - 1))
        self.up = nn.ModuleList(nn.ConvTranspose3d(WIDTHS[k + 1], WIDTHS[k], 2, 2) for k in range(count - 1))
        self.skips = nn.ModuleList(nn.Conv3d(WIDTHS[k], WIDTHS[k], 1, bias=False) for k in range(count - 1))
        self.encoder, self.decoder = (nn.ModuleList(DenseBlock(w) for w in WIDTHS) for _ in range(2))

    def forward(self, x: Tensor) -> list[Tensor]:
        x, kept = self.stem(x), []
        for k, block in enumerate(self.encoder):
            x = block(self.down[k - 1](x) if k else x)
            kept.append(x)
        x = self.decoder[-1](x)
        found = [x]
        for k in range(len(WIDTHS) - 2, -1, -1):
            x = self.decoder[k](self.up[k](x) + self.skips[k](kept[k]))
            found.append(x)
        return found


def spconv_net() -> Callable[[Tensor, Tensor], list[Tensor]]:
    """The same levels, widths and blocks in spconv's layers: features and places to features, coarsest first."""
    import spconv.pytorch as spconv
    from spconv.core import ConvAlgo
    from spconv.pytorch import cppcore, ops

    cppcore.get_current_stream = ops.get_current_stream = lambda: 0
    how, count = {"algo": ConvAlgo.Native, "bias": False}, len(WIDTHS)

    def blocks() -> list[tuple[Any, Any]]:
        return [
            tuple(spconv.SubMConv3d(w, w, 3, indice_key=f"same {k}", **how) for _ in range(2))
            for k, w in enumerate(WIDTHS)
        ]

    stem, encoder, decoder = nn.Linear(6, WIDTHS[0], bias=False), blocks(), blocks()
    skips = [nn.Linear(w, w, bias=False) for w in WIDTHS[:-1]]
    down, up = [], []
    for k in range(count - 1):
        down.append(spconv.SparseConv3d(WIDTHS[k], WIDTHS[k + 1], 2, 2, indice_key=f"down {k}", **how))
        up.append(spconv.SparseInverseConv3d(WIDTHS[k + 1], WIDTHS[k], 2, indice_key=f"down {k}", **how))

    def block(layers: tuple[Any, Any], x: Any) -> Any:
        inner = layers[0](x)
        return x.replace_feature(x.features + layers[1](inner.replace_feature(gelu(inner.features))).features)

    def net(features: Tensor, place: Tensor) -> list[Tensor]:
        x, kept = spconv.SparseConvTensor(stem(features), place.int(), [SIDE] * 3, 1), []
        for k in range(count):
            x = block(encoder[k], down[k - 1](x) if k else x)
            kept.append(x)
        x = block(decoder[-1], x)
        found = [x.features]
        for k in range(count - 2, -1, -1):
            x = up[k](x)
            x = block(decoder[k], x.replace_feature(x.features + skips[k](kept[k].features)))
            found.append(x.features)
        return found

    return net


def workers() -> dict[str, Callable[[], float]]:
    """Steps a second of all, neighbours looked up anew in each."""
    place = surfaces()
    x = torch.randn(len(place), 6, generator=torch.Generator().manual_seed(1))
    dense = torch.zeros(1, 6, SIDE, SIDE, SIDE)
    dense[0][(slice(None), *place[:, 1:].T)] = x.T
    sparse_net = HUNet(6, WIDTHS, WIDTHS[::-1], blocks=1, attention=0, drop_path=0.0)
    dense_net = DenseUNet()

    def sparse_step() -> float:
        began = time.perf_counter()
        sum(y.square().mean() for y in sparse_net(x, pyramid(place, len(WIDTHS)))).backward()
        return 1 / (time.perf_counter() - began)

    def dense_step() -> float:
        began = time.perf_counter()
        sum(y.square().mean() for y in dense_net(dense)).backward()
        return 1 / (time.perf_counter() - began)

    print(f"{len(place):,} of {SIDE**3:,} places are occupied ({len(place) / SIDE**3:.1%})")
    found = {"dense": dense_step, "sparse": sparse_step}
    if find_spec("spconv") is None:
        print("spconv is not installed: no row of it (see the top of this file)")
        return found
    other_net = spconv_net()

    def other_step() -> float:
        began = time.perf_counter()
        sum(y.square().mean() for y in other_net(x, place)).backward()
        return 1 / (time.perf_counter() - began)

    return found | {"spconv": other_step}


def peak(points: int) -> float:
    """Peak memory in MB of a step on so many points of a square field of one density, beyond what loading takes."""
    generator = torch.Generator().manual_seed(0)
    side = (points / 1000) ** 0.5
    coord = torch.rand(points, 3, generator=generator) * torch.tensor((side, side, 0.1))
    place, _ = voxelise(coord, torch.tensor([points]), 0.02)
    net = HUNet(6, WIDTHS, WIDTHS[::-1], blocks=1, attention=1, attention_levels=1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    x = torch.randn(len(place), 6, generator=generator)
    sum(y.square().mean() for y in net(x, pyramid(place, len(WIDTHS)))).backward()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main(count: int) -> None:
    """All networks in turn, then the memory; the ratios are stored."""
    known = machine()
    found = compared(rounds(workers(), count), "sparse")
    show(f"U-Net at {SHARE:.0%} occupancy of {SIDE}^3 places", found, "steps/s")
    memory = {}
    for points in SIZES:
        made = subprocess.run([sys.executable, __file__, "--peak", str(points)], check=True, capture_output=True)
        memory[f"{points} points"] = json.loads(made.stdout)
        print(f"{points:>9,} points: {memory[f'{points} points']:8.0f} MB")
    tried = (
        metadata.version("spconv") + " on the CPU, Native algorithm" if "spconv" in found["rates"] else "not installed"
    )
    work = f"a U-Net at {SHARE:.0%} occupancy of {SIDE}^3 places, forward and backward, steps per second"
    store(
        "sparse",
        {"work": work, "machine": known, "rounds": count, "spconv": tried, "peak memory in MB": memory} | found,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peak", type=int, default=0)
    options = parser.parse_args()
    if options.peak:
        print(peak(options.peak))
    else:
        main(options.rounds)
