"""What choosing anew costs: features of the whole archive and the choice, beside an epoch of training on it.

    python benchmarks/speed/reselect.py [--images 50000] [--encoder resnet10-narrow] [--side 32] [--batch 128]
        [--steps 15] [--embedded 3000] [--method dynamic-curation] [--rounds 3] [--threads 2]

An epoch is one pass over all images, by the rate that ``selftaught train`` writes (loader and views included, the
first steps left out). The limit is 10 % of it. Choices are made every T_s epochs: of a run they take a T_s-th of that.

So that it ends within two minutes, features are made of ``--embedded`` images, and their time is taken times as many as
the archive has more: they go batch by batch, each as long as the next. The choice itself is made whole, among as many
rows as the archive has images: the features that were made, drawn again and again and moved a little.
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
from selftaught.data.curation.selection import choose
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
    """Seconds of the features of all images, and of the choice among them."""
    again = Reselection(ReselectionOptions(rho=0.2))
    part = images[: options.embedded]
    again.order(open_source(part, split="all"), options.batch, 0)
    began = time.perf_counter()
    known = again._features(method)
    embedded = (time.perf_counter() - began) * options.images / len(part)
    rng = np.random.default_rng(1)
    table = known[rng.integers(len(known), size=options.images)]
    table += (0.3 * known.std(0) * rng.standard_normal(table.shape, dtype=np.float32)).astype(table.dtype)
    target = max(1, round(again.options.rho * options.images))
    began = time.perf_counter()
    kept = choose(table, target, again.options, seed=0)
    choice = time.perf_counter() - began
    assert len(kept.indices) == target
    return {"features": embedded, "choice": choice, "both": embedded + choice}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (
        ("images", 50_000),
        ("embedded", 3_000),
        ("side", 32),
        ("batch", 128),
        ("steps", 15),
        ("rounds", 3),
        ("threads", 2),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--encoder", default="resnet10-narrow")
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
