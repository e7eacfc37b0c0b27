"""What choosing anew costs: features of the whole archive and the choice, beside an epoch of training on it.

    python benchmarks/speed/reselect.py [--images 50000] [--encoder resnet18] [--side 32] [--batch 128] [--steps 30]
        [--method dynamic-curation] [--rounds 3] [--threads 2]

An epoch is one pass over all images, by the rate that ``selftaught train`` writes (loader and views included, the
first steps left out). The limit is 10 % of it. Choices are made every T_s epochs: of a run they take a T_s-th of that.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from typing import Any

import numpy as np
import torch
from common import machine, spread, store

import selftaught
from selftaught.data import open_source
from selftaught.engine.reselection import Reselection, ReselectionOptions

WARM = 3


def trained(options: argparse.Namespace, images: np.ndarray) -> tuple[Any, float]:
    """The method after a few steps, and the images per second of those that count."""
    with tempfile.TemporaryDirectory() as folder:
        run = selftaught.train(
            options.method, images, out=f"{folder}/run", preset="laptop", encoder=options.encoder,
            image_size=options.side, steps=WARM + options.steps, batch_size=options.batch, log_every=1, knn_every=0.0,
            quiet=True, loggers=["none"],
        )  # fmt: skip
        with run.layout.metrics.open(newline="") as file:
            rates = [float(row["per_second"]) for row in csv.DictReader(file)][WARM:]
        return run.method, len(rates) / sum(1 / rate for rate in rates)


def chosen(options: argparse.Namespace, method: Any, images: np.ndarray) -> dict[str, float]:
    """Seconds of the features of all images, and of the choice."""
    again = Reselection(ReselectionOptions(rho=0.2))
    again.order(open_source(images, split="all"), options.batch, 0)
    began = time.perf_counter()
    again._features(method)
    embedded = time.perf_counter() - began
    began = time.perf_counter()
    kept = again.choose(method)
    both = time.perf_counter() - began
    assert len(kept.indices) == again.target(len(images))
    return {"features": embedded, "choice": max(0.0, both - embedded), "both": both}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (
        ("images", 50_000),
        ("side", 32),
        ("batch", 128),
        ("steps", 30),
        ("rounds", 3),
        ("threads", 2),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--method", default="dynamic-curation")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    before = machine()
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (200, 4, 4, 3))[rng.integers(200, size=options.images)]
    images = np.repeat(np.repeat(colours, options.side // 4, 1), options.side // 4, 2).astype(np.int16)
    images = (images + rng.integers(-20, 20, images.shape, dtype=np.int16)).clip(0, 255).astype(np.uint8)
    rows: list[dict[str, float]] = []
    for turn in range(options.rounds):
        method, rate = trained(options, images)
        row = {"epoch": options.images / rate} | chosen(options, method, images)
        row["share of an epoch"] = row["both"] / row["epoch"]
        rows.append(row)
        print(f"  round {turn + 1}: " + ", ".join(f"{name} {value:.3g}" for name, value in row.items()), flush=True)
    seconds = {name: spread([row[name] for row in rows]) for name in ("epoch", "features", "choice", "both")}
    share = spread([row["share of an epoch"] for row in rows])
    print(f"  {share['median']:.1%} of an epoch ({share['min']:.1%} to {share['max']:.1%}); the limit is 10 %")
    content = {
        "work": "seconds of an epoch on all images, of their features, and of choosing anew",
        "options": vars(options),
        "seconds": seconds,
        "shares": {"choosing anew, of an epoch (at most 10 %)": share},
    }
    store("reselect", content | {"machine": before})


if __name__ == "__main__":
    main()
