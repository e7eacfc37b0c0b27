"""SimCLR with ResNet-18 (3x3 stem) at 32x32, batch 128, end to end: from stored images to updated weights.

    python benchmarks/speed/step.py [--steps 8] [--rounds 5] [--compile] [--accuracy]

Contenders, in turn within every round: this toolkit's ``train`` as a user calls it; lightly's documented SimCLR loop in
float32; the same tuned by an expert (bf16 autocast, channels_last, one loader worker); stable-pretraining's in
half precision; and the bare bf16 step on tensors that lie in memory already, the floor. All have the same network,
projector, optimiser and batch; each runs in a process of its own and leaves its first steps out.
``--accuracy`` trains the fast and the plain path (float32, one view a call) for equal steps and compares k-NN accuracy.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from common import compared, machine, rounds, show, store, stored
from peers import peer, rate_of
from PIL import Image
from skimage import data as photographs
from torch import nn
from torch.utils.data import Dataset

import selftaught
from selftaught import networks

SIDE, BATCH, WIDTHS = 32, 128, "512-128"
WARM = 3  # steps that are left out


def pictures(n: int) -> np.ndarray:
    """n tiles (32, 32, 3) uint8 of two photographs: the sizes of CIFAR."""
    rng = np.random.default_rng(0)
    sources = [cv2.resize(make(), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for make in SOURCES]
    found = np.empty((n, SIDE, SIDE, 3), np.uint8)
    for i in range(n):
        image = sources[i % len(sources)]
        top, left = (int(rng.integers(0, side - SIDE + 1)) for side in image.shape[:2])
        found[i] = image[top : top + SIDE, left : left + SIDE]
    return found


SOURCES = (photographs.astronaut, photographs.coffee)


class Tiles(Dataset):
    """The tiles as PIL images with a label, transformed as torchvision's CIFAR10 does."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = images
        self.transform: Any = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = Image.fromarray(self.images[index])
        return (image if self.transform is None else self.transform(image)), 0


def network() -> nn.Module:
    """The encoder with its projector, as all contenders train it."""
    encoder = networks.encoder("resnet18", image_size=SIDE)
    return nn.Sequential(encoder, networks.mlp([encoder.dim, *map(int, WIDTHS.split("-"))], hidden_bias=False))


def accuracy(seeds: int, steps: int) -> dict[str, Any]:
    """k-NN accuracy after equal steps of the fast path and of the plain one, paired by seed."""
    from selftaught.evaluation import paired_difference

    paths = {
        "fast": {"one_forward": True, "precision": "auto", "workers": -1},
        "plain": {"one_forward": False, "precision": "32", "workers": 0},
    }
    found: dict[str, list[float]] = {name: [] for name in paths}
    for seed in range(seeds):
        for name, options in paths.items():
            with tempfile.TemporaryDirectory() as folder:
                run = selftaught.train(
                    "simclr", "fashion-mnist?n=6000", out=f"{folder}/run", seed=seed, steps=steps, augment="grey",
                    image_size=32, stem="standard", knn_every=0.0, quiet=True, loggers=["none"], **options,
                )  # fmt: skip
                found[name].append(run.evaluate(protocols=["knn"], baselines=False)["knn"]["this"]["accuracy"].mean)
                print(f"  seed {seed} {name}: k-NN {found[name][-1]:.4f}", flush=True)
    difference = paired_difference(found["fast"], found["plain"]).to_dict()
    return {"steps": steps, "k-NN accuracy": found, "fast minus plain": difference}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="also run ours with --compile, a few minutes more")
    parser.add_argument("--accuracy", action="store_true", help="also compare the paths' accuracy (3 seeds, 200 steps)")
    options = parser.parse_args()
    before = machine()

    def contender(script: str, *arguments: Any) -> Callable[[], float]:
        return lambda: rate_of(Path(__file__).with_name(script), options.steps, *arguments)

    contenders = {"selftaught train": contender("selftaught_step.py")}
    if options.compile:
        contenders["selftaught train --compile"] = contender("selftaught_step.py", "--compile")
    contenders["bare bf16 step (floor)"] = contender("bare_step.py")
    if peer("lightly") is not None:
        contenders["lightly as documented (fp32)"] = contender("lightly_step.py")
        contenders["lightly tuned (bf16)"] = contender("lightly_step.py", "--tuned")
    if peer("stable-pretraining") is not None:
        contenders["stable-pretraining as documented (bf16)"] = contender("stable_pretraining_step.py")
    run = compared(rounds(contenders, options.rounds, warm=0), "selftaught train")
    show("SimCLR ResNet-18 32x32 batch 128, end to end", run, "img/s")
    result: dict[str, Any] = {"work": "SimCLR, ResNet-18 (3x3 stem), 32x32, batch 128, end to end, images per second"}
    result |= {"machine": before, "rounds": options.rounds, "steps": options.steps} | run
    if options.accuracy:
        result["accuracy"] = accuracy(seeds=3, steps=200)
    elif kept := stored("step").get("accuracy"):
        result["accuracy"] = kept | {"measured": "in an earlier run"}
    store("step", result)


if __name__ == "__main__":
    main()
