"""Image-text training: gradient caching against the plain step at an equal batch, and what tokenising takes of a step.

    python benchmarks/speed/pairs.py [--rows 256] [--pieces 64] [--rounds 7] [--encoder vit_tiny_patch16_224]

The limit for gradient caching is 1.35 times the plain step's time. Tokenising is done by the loader, never in the step;
its share says what it would cost there.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from common import compared, machine, rounds, show, store

from selftaught import methods
from selftaught.views import tokeniser

TOWERS = {"image_size": 64, "dim": 128, "tokeniser": "words-4096", "context": 16, "text_width": 128, "text_heads": 4,
          "text_layers": 2}  # fmt: skip


def step(pieces: int, options: argparse.Namespace) -> Callable[[], float]:
    """Samples per second of forward and backward pass."""
    torch.manual_seed(0)
    method = methods.get("clip")(encoder=options.encoder, pieces=pieces, **TOWERS).train()
    batch = {
        "image_global": torch.randn(options.rows, 3, 64, 64),
        "text_global": torch.from_numpy(tokeniser("words-4096")(["a red square at the top"] * options.rows, 16)),
    }

    def work() -> float:
        began = time.perf_counter()
        method.zero_grad(set_to_none=True)
        method.loss(batch)["loss"].backward()
        return options.rows / (time.perf_counter() - began)

    return work


def tokenise(options: argparse.Namespace) -> Callable[[], float]:
    """Texts per second."""
    texts = [f"a red square number {k} at the top of a wide blue field" for k in range(options.rows)]

    def work() -> float:
        began = time.perf_counter()
        tokeniser("words-4096")(texts, 16)
        return options.rows / (time.perf_counter() - began)

    return work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("rows", 256), ("pieces", 64), ("rounds", 7), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--encoder", default="vit_tiny_patch16_224")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rates = rounds({"plain": step(0, options), "cached": step(options.pieces, options)}, options.rounds)
    result = compared(rates, "plain")
    texts = rounds({"tokenise": tokenise(options)}, options.rounds)["tokenise"]
    share = sorted(plain / text for plain, text in zip(rates["plain"], texts, strict=True))[len(texts) // 2]
    show("image-text step, samples per second", result, "/s")
    store("pairs", {"work": "samples per second of CLIP's step", "options": vars(options), **result,
                    "tokenising as a share of the step": share, "machine": machine()})  # fmt: skip


if __name__ == "__main__":
    main()
