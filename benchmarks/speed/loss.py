"""Contrastive losses, forward and backward, D = 128: tiled against the N x N matrix; time and peak extra memory.

    python benchmarks/speed/loss.py [--rounds 7]

Memory is the growth of the process's peak resident size over the inputs and gradients, each case in a process of its
own. At N = 65,536 the matrix alone would take 64 GiB (float32, 2N x 2N), so only the tiled form runs there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import compared, machine, rounds, show, store
from torch import Tensor
from torch.nn.functional import normalize

from selftaught import objectives

WIDTH, TEMPERATURE = 128, 0.2


def matrix_simclr(z1: Tensor, z2: Tensor) -> Tensor:
    """NT-Xent as it is usually written: one 2N x 2N matrix, its diagonal left out."""
    z = normalize(torch.cat([z1, z2]))
    logits = z @ z.T / TEMPERATURE
    logits.fill_diagonal_(-torch.inf)
    target = torch.arange(len(z), device=z.device).roll(len(z1))
    return torch.nn.functional.cross_entropy(logits, target)


def matrix_dcl(z1: Tensor, z2: Tensor) -> Tensor:
    """DCL over one 2N x 2N matrix, diagonal and positives left out."""
    z1, z2 = normalize(z1), normalize(z2)
    z = torch.cat([z1, z2])
    logits = z @ z.T / TEMPERATURE
    index = torch.arange(len(z), device=z.device)
    mask = torch.zeros_like(logits, dtype=torch.bool)
    mask[index, index] = True
    mask[index, index.roll(len(z1))] = True
    partition = logits.masked_fill(mask, -torch.inf).logsumexp(1)
    positive = (z1 * z2).sum(1).repeat(2) / TEMPERATURE
    return 2 * (partition - positive).mean()


def matrix_clip(z1: Tensor, z2: Tensor) -> Tensor:
    """CLIP's loss as its paper writes it: an N x N matrix, cross-entropy along both axes."""
    logits = normalize(z1) @ normalize(z2).T / TEMPERATURE
    target = torch.arange(len(logits), device=logits.device)
    cross_entropy = torch.nn.functional.cross_entropy
    return (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2


def tiled_simclr(z1: Tensor, z2: Tensor) -> Tensor:
    return objectives.simclr(z1, z2, temperature=TEMPERATURE)


def tiled_dcl(z1: Tensor, z2: Tensor) -> Tensor:
    return objectives.dcl(normalize(z1), normalize(z2), temperature=TEMPERATURE)


def tiled_clip(z1: Tensor, z2: Tensor) -> Tensor:
    return objectives.clip(z1, z2, temperature=TEMPERATURE)


LOSSES = ("simclr", "dcl", "clip")
CASES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "simclr tiled": tiled_simclr,
    "simclr matrix": matrix_simclr,
    "dcl tiled": tiled_dcl,
    "dcl matrix": matrix_dcl,
    "clip tiled": tiled_clip,
    "clip matrix": matrix_clip,
}


def inputs(n: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    z1 = torch.randn(n, WIDTH)
    return z1.requires_grad_(), (z1.detach() + 0.5 * torch.randn(n, WIDTH)).requires_grad_()


def rate(name: str, n: int) -> Callable[[], float]:
    """Samples per second over at least a quarter of a second."""
    z1, z2 = inputs(n)

    def work() -> float:
        began, done = time.perf_counter(), 0
        while done < 2 or time.perf_counter() - began < 0.25:
            z1.grad = z2.grad = None
            CASES[name](z1, z2).backward()
            done += 1
        return n * done / (time.perf_counter() - began)

    return work


def peak(name: str, n: int) -> float:
    """MiB of peak memory beyond inputs and gradients, measured in a process of its own."""
    command = [sys.executable, __file__, "--peak", name, str(n)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def _peak_here(name: str, n: int) -> float:
    small = inputs(64)
    CASES[name](*small).backward()  # libraries loaded, threads started
    z1, z2 = inputs(n)
    z1.grad, z2.grad = torch.zeros_like(z1), torch.zeros_like(z2)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is resident now
    before = _high_water()
    CASES[name](z1, z2).backward()
    return (_high_water() - before) / 1024


def _high_water() -> int:
    """Peak resident size in KiB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def exactness(n: int = 1024) -> dict[str, float]:
    """Largest relative difference of value and gradient between tiled and matrix form in float64 and float32."""
    found = {}
    for loss in LOSSES:
        for dtype in (torch.float64, torch.float32):
            results = []
            for form in ("tiled", "matrix"):
                z1, z2 = (z.detach().to(dtype).requires_grad_() for z in inputs(n))
                value = CASES[f"{loss} {form}"](z1, z2)
                value.backward()
                results.append((value.detach(), z1.grad))
            (a, ga), (b, gb) = results
            error = max(float((a - b).abs() / b.abs()), float((ga - gb).abs().max() / gb.abs().max()))
            found[f"{loss} {str(dtype).removeprefix('torch.')}"] = error
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peak", nargs=2, metavar=("CASE", "N"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print(_peak_here(options.peak[0], int(options.peak[1])))
        return
    result: dict[str, Any] = {"work": "contrastive losses forward and backward, D = 128", "machine": machine()}
    result["relative error of the tiled form"] = exactness()
    result["runs"] = []
    for n in (256, 1024, 4096):
        for loss in LOSSES:
            work = {f"{loss} {form}": rate(f"{loss} {form}", n) for form in ("tiled", "matrix")}
            run = compared(rounds(work, options.rounds), f"{loss} tiled")
            show(f"{loss}, N = {n}", run, "samples/s")
            result["runs"].append({"loss": loss, "n": n} | run)
    sizes = [("simclr tiled", n) for n in (4096, 16384, 65536)] + [("simclr matrix", n) for n in (1024, 2048, 4096)]
    sizes += [("dcl tiled", 65536), ("clip matrix", 4096), ("clip tiled", 4096), ("clip tiled", 65536)]
    result["peak extra MiB"] = [{"case": name, "n": n, "MiB": round(peak(name, n), 1)} for name, n in sizes]
    print(json.dumps(result["peak extra MiB"], indent=1))
    print(json.dumps(result["relative error of the tiled form"], indent=1))
    store("loss", result)


if __name__ == "__main__":
    main()
