"""STORM's step against the plain step of the same learner: on texts by TF-IDF and by a small transformer, on images.

    python benchmarks/speed/meta.py [--rows 32] [--seconds 1] [--rounds 7] [--threads 1] [--learner tfidf] [--count]

The limit is 3 times the plain step's time. Every turn of a learner takes about ``--seconds``, and its row is stored as
soon as it is measured, so that ``--learner`` renews one of them alone. Both steps are whole ones, of the method's own
`step` with its optimisers; STORM's reads two batches of ``rows``, takes the learner's step and differentiates through
it.

The multiplications of both steps are counted as well: no implementation is faster than their ratio where they are
what takes the time. With F for a forward pass, a plain step is about 3 F. STORM's is about 8 F: a plain step's work on
either batch, and 2 F from the learner's gradient to the weights alone; where the encoder has dropout of its own, the
further passes add 2 G F, 4 F for the G = 2 of the paper: with 12 F in all, four times the plain step's, such an
encoder can't keep the limit at the paper's G. Little learners' time is not in their multiplications.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from common import compared, machine, rounds, show, store, stored
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from selftaught import methods
from selftaught.engine.memory import freed_memory_kept

LEARNERS: dict[str, dict[str, Any]] = {
    "tfidf": {"encoder": "tfidf", "vocabulary": 2000, "dropout": 0.2},
    "words": {"encoder": "words", "vocabulary": 2000, "dropout": 0.2, "max_length": 32},
    "resnet10-narrow": {"encoder": "resnet10-narrow", "image_size": 32, "dropout": 0.2},
    "cnn-small": {"encoder": "cnn-small", "image_size": 32, "dropout": 0.2},
}


def batches(method: Any, rows: int, count: int) -> list[dict[str, Any]]:
    """Data and meta batches with everything that the loader would have made."""
    chance = torch.Generator().manual_seed(0)

    def one() -> dict[str, Any]:
        labels = torch.randint(0, 2, (rows,), generator=chance)
        found: dict[str, Any] = {"index": torch.arange(rows), "label": labels}
        if method.modality != "text":
            return found | {"views": [torch.randn(rows, 3, 32, 32, generator=chance)]}
        words = torch.randint(0, 1900, (rows, 24), generator=chance).tolist()
        texts = [" ".join(f"word{k}" for k in row) for row in words]
        return found | {"x": method.encoder.vectorise(texts)}

    return [{"data": one(), "meta": one()} for _ in range(count)]


def made(mode: str, learner: str) -> Any:
    """The method with that learner, its vocabulary known."""
    torch.manual_seed(0)
    modality = "text" if learner in ("tfidf", "words") else "image"
    method = methods.get("meta-loss-rescaling")(
        {"mode": mode, "lr": 1e-4} | LEARNERS[learner], channels=3, classes=2, modality=modality
    )
    if modality == "text":
        known = [" ".join(f"word{k}" for k in range(start, start + 100)) for start in range(0, 1900, 100)]
        for part in method._vocabularies():
            part.fit(known)
    return method


def trained(method: Any, given: list[dict[str, Any]], *callbacks: L.Callback) -> None:
    """One epoch over the batches, with memory as ``selftaught train`` keeps it."""
    trainer = L.Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu", callbacks=list(callbacks),
    )  # fmt: skip
    with freed_memory_kept():
        trainer.fit(method, DataLoader(given, batch_size=None))


def multiplications(mode: str, learner: str, rows: int) -> int:
    """Of matrices and convolutions in one step, additions counted with them."""
    method = made(mode, learner)
    with FlopCounterMode(display=False) as counter:
        trained(method, batches(method, rows, 1))
    return counter.get_total_flops()


def steps_per_second(mode: str, learner: str, options: argparse.Namespace) -> Callable[[], float]:
    """Steps per second of one mode; the first step of every turn is left out, and the first turn has few."""
    method = made(mode, learner)
    given = batches(method, options.rows, 4)
    count = 10

    class Clock(L.Callback):
        """How long each step took."""

        def on_train_start(self, *_: Any) -> None:
            self.spent: list[float] = []

        def on_train_batch_start(self, *_: Any) -> None:
            self.began = time.perf_counter()

        def on_train_batch_end(self, *_: Any) -> None:
            self.spent.append(time.perf_counter() - self.began)

    def work() -> float:
        nonlocal count
        clock = Clock()
        trained(method, [given[k % len(given)] for k in range(count + 1)], clock)
        rate = count / sum(clock.spent[1:])
        count = max(10, round(options.seconds * rate))
        return rate

    return work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("rows", 32), ("rounds", 7), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seconds", type=float, default=1.0, help="that each of the two steps is repeated in a round")
    parser.add_argument("--learner", choices=list(LEARNERS), help="one of them alone")
    parser.add_argument("--count", action="store_true", help="multiplications alone, which takes no quiet machine")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    work = "steps per second of plain training and of STORM; the ratio: how many times longer a step of STORM takes"
    here = machine()
    before = stored("meta")
    alike = before.get("machine", {}).get("processor") == here["processor"]  # rows of one page are of one machine
    runs = {run["learner"]: run for run in before.get("runs", [])} if alike else {}
    for learner in [options.learner] if options.learner else LEARNERS:
        counts = {mode: multiplications(mode, learner, options.rows) for mode in ("plain", "storm")}
        times = counts["storm"] / counts["plain"]
        print(f"{learner}: {counts['plain']:,} multiplications in a plain step, STORM's {times:.2f} times as many")
        runs[learner] = runs.get(learner, {}) | {"learner": learner, "multiplications": counts}
        if not options.count:
            rates = {mode: steps_per_second(mode, learner, options) for mode in ("plain", "storm")}
            runs[learner] |= compared(rounds(rates, options.rounds), "plain") | {"options": vars(options)}
            show(f"{learner}: steps per second", runs[learner], "/s")
        store("meta", {"work": work, "machine": here, "runs": list(runs.values())})


if __name__ == "__main__":
    main()
