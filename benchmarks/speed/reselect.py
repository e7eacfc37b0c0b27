"""What choosing anew costs: features of the whole archive and the choice, beside an epoch of training on it.

    python benchmarks/speed/reselect.py [--images 50000] [--encoder resnet10-narrow] [--side 32] [--batch 128]
        [--steps 12] [--embedded 2560] [--method dynamic-curation] [--rounds 3] [--threads 2]

The limit is 10 % of an epoch, one pass over all images. Choices are made every T_s epochs: of a run they take a T_s-th
of that. So that three rounds end within two minutes, two of the times are samples, multiplied:

- the epoch: ``--steps`` steps of ``selftaught.train``, views included, the first ones left out;
- the features: ``--embedded`` images, batch by batch, as :class:`Reselection` makes them.

The choice itself is made whole, among as many rows as the archive has images: the features that were made, drawn again
and again and moved a little. Samples are read in the process itself and not by workers, so that its processor time
holds all of the work; on a busy machine that time tells more than the clock. Each round is printed as it ends.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from typing import Any

import lightning
import numpy as np
import torch
from common import machine, spread, store

import selftaught
from selftaught.data import open_source
from selftaught.data.curation.selection import choose
from selftaught.engine.embedding import feature_table
from selftaught.engine.reselection import ReselectionOptions

WARM = 3
PARTS = ("epoch", "features", "choice", "both")


def now() -> np.ndarray:
    """Seconds of the clock, and of all threads of this process."""
    return np.array([time.perf_counter(), time.process_time()])


class Clock(lightning.Callback):
    """The times at which steps ended."""

    def __init__(self) -> None:
        self.times: list[np.ndarray] = []

    def on_train_batch_end(self, *_: Any) -> None:
        self.times.append(now())


def trained(options: argparse.Namespace, images: np.ndarray) -> tuple[Any, np.ndarray]:
    """The method after a few steps, and the seconds of an epoch at the pace of those that count."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        run = selftaught.train(
            options.method, images, out=f"{folder}/run", preset="laptop", encoder=options.encoder, workers=0,
            image_size=options.side, steps=WARM + options.steps, batch_size=options.batch, log_every=1, knn_every=0.0,
            quiet=True, loggers=["none"], callbacks=[clock],
        )  # fmt: skip
        method = run.method
    step = (clock.times[-1] - clock.times[WARM - 1]) / options.steps
    return method, step * options.images / options.batch


def chosen(options: argparse.Namespace, method: Any, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of the features of all images, and of the choice among them."""
    part, how = images[: options.embedded], ReselectionOptions(rho=0.2)
    source = open_source(part, split="all")
    feature_table(method, source, method.selection_features, workers=0, stop=min(256, len(part)))  # warm
    began = now()
    known = feature_table(method, source, method.selection_features, workers=0)
    embedded = (now() - began) * options.images / len(part)
    rng = np.random.default_rng(1)
    table = known[rng.integers(len(known), size=options.images)]
    table += (0.3 * known.std(0) * rng.standard_normal(table.shape, dtype=np.float32)).astype(table.dtype)
    target = max(1, round(how.rho * options.images))
    began = now()
    kept = choose(table, target, how, seed=0)
    choice = now() - began
    if kept.mode != "balanced" or len(kept.indices) != target:
        raise RuntimeError(f"{len(kept.indices)} of {target} chosen by {kept.mode}: {kept.note}")
    return embedded, choice


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (
        ("images", 50_000),
        ("embedded", 2_560),
        ("side", 32),
        ("batch", 128),
        ("steps", 12),
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
    colours = rng.integers(0, 256, (200, 4, 4, 3), dtype=np.uint8)[rng.integers(200, size=options.images)]
    images = np.repeat(np.repeat(colours, options.side // 4, 1), options.side // 4, 2)
    images = np.where(rng.random(images.shape, dtype=np.float32) < 0.2, images // 2, images)
    rows: list[dict[str, np.ndarray]] = []
    for turn in range(options.rounds):
        method, epoch = trained(options, images)
        embedded, choice = chosen(options, method, images)
        row = dict(zip(PARTS, (epoch, embedded, choice, embedded + choice), strict=True))
        rows.append(row)
        told = ", ".join(f"{name} {value[0]:.3g} s ({value[1]:.3g})" for name, value in row.items())
        shares = row["both"] / row["epoch"]
        print(f"  round {turn + 1}: {told}: {shares[0]:.1%} ({shares[1]:.1%} of processor time)", flush=True)
    found: dict[str, Any] = {}
    for kind, name in enumerate(("clock", "processor")):
        share = spread([row["both"][kind] / row["epoch"][kind] for row in rows])
        print(f"  by the {name}: {share['median']:.1%} of an epoch ({share['min']:.1%} to {share['max']:.1%})")
        seconds = {part: spread([row[part][kind] for row in rows]) for part in PARTS}
        found[name] = {"seconds": seconds, "choosing anew, of an epoch (at most 0.1)": share}
    content = {
        "work": "seconds of an epoch on all images, of their features, and of choosing anew; epoch and features are "
        "multiplied from a sample",
        "options": vars(options),
        "rounds": options.rounds,
    }
    store("reselect", content | found | {"machine": before})


if __name__ == "__main__":
    main()
