"""SimCLR with ResNet-18 (3x3 stem) at 32x32, batch 128, end to end: from stored images to updated weights.

    python benchmarks/speed/step.py [--steps 8] [--rounds 5] [--compile] [--accuracy]

Contenders, in turn within every round: this toolkit's ``train`` as a user calls it; lightly's documented SimCLR loop in
float32; the same tuned by an expert (bf16 autocast, channels_last, as many loader workers); stable-pretraining's in
half precision; and the bare bf16 step on tensors that lie in memory already, the floor. All have the same network,
projector, optimiser and batch.
``--accuracy`` trains the fast and the plain path (float32, one view a call) for equal steps and compares k-NN accuracy.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from common import compared, machine, rounds, show, store, stored
from peers import lightly_views, peer, rate_of
from PIL import Image
from skimage import data as photographs
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import selftaught
from selftaught import networks, objectives

SIDE, BATCH, WIDTHS = 32, 128, "512-128"


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


def network() -> nn.Module:
    """The encoder with its projector, as all contenders train it."""
    encoder = networks.encoder("resnet18", image_size=SIDE)
    return nn.Sequential(encoder, networks.mlp([encoder.dim, *map(int, WIDTHS.split("-"))], hidden_bias=False))


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


class Lightly:
    """lightly's SimCLR example: its data set, transform, loss and loop; ``tuned`` adds bf16 and channels_last."""

    def __init__(self, images: np.ndarray, steps: int, tuned: bool) -> None:
        from lightly.data import LightlyDataset
        from lightly.loss import NTXentLoss

        dataset = LightlyDataset.from_torch_dataset(Tiles(images), transform=lightly_views(SIDE, gaussian_blur=0.0))
        workers = 1 if tuned else 2  # the expert leaves the step's threads their cores
        options: dict[str, Any] = {"batch_size": BATCH, "shuffle": True, "drop_last": True}
        self.loader = DataLoader(dataset, num_workers=workers, persistent_workers=True, **options)
        self.steps, self.tuned, self.criterion = steps, tuned, NTXentLoss(temperature=0.5)
        self.model = network()
        if tuned:
            self.model = self.model.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.06)

    def __call__(self) -> float:
        done, began = -2, 0.0
        while done < self.steps:
            for batch in self.loader:
                if done == 0:
                    began = time.perf_counter()
                self.step(*batch[0])
                done += 1
                if done == self.steps:
                    break
        return BATCH * self.steps / (time.perf_counter() - began)

    def step(self, x0: Tensor, x1: Tensor) -> None:
        if self.tuned:
            x0, x1 = (x.contiguous(memory_format=torch.channels_last) for x in (x0, x1))
        with torch.autocast("cpu", torch.bfloat16, enabled=self.tuned):
            loss = self.criterion(self.model(x0), self.model(x1))
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


class Bare:
    """The floor: forward, loss, backward and update in bf16 on tensors in memory, both views in one call."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.model = network().to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.06, fused=True)
        self.x = torch.randn(2 * BATCH, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)

    def __call__(self) -> float:
        for turn in range(self.steps + 2):
            if turn == 2:
                began = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16):
                z1, z2 = self.model(self.x).chunk(2)
            objectives.simclr(z1, z2, temperature=0.5).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
        return BATCH * self.steps / (time.perf_counter() - began)


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
    images = pictures(4096)
    ours, spt = (Path(__file__).with_name(f"{name}_step.py") for name in ("selftaught", "stable_pretraining"))
    contenders: dict[str, Any] = {"selftaught train": lambda: rate_of(ours, options.steps)}
    if options.compile:
        contenders["selftaught train --compile"] = lambda: rate_of(ours, options.steps, "--compile")
    contenders["bare bf16 step (floor)"] = Bare(options.steps)
    if peer("lightly") is not None:
        contenders["lightly as documented (fp32)"] = Lightly(images, options.steps, tuned=False)
        contenders["lightly tuned (bf16)"] = Lightly(images, options.steps, tuned=True)
    if peer("stable-pretraining") is not None:
        contenders["stable-pretraining as documented (bf16)"] = lambda: rate_of(spt, options.steps)
    run = compared(rounds(contenders, options.rounds), "selftaught train")
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
