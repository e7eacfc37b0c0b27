"""Embedding a folder of JPEG files: ``apply`` against a plain torchvision DataLoader loop, and the two floors.

    python benchmarks/speed/embed.py [--images 1536] [--rounds 3]

The floors are measured on the same files: decoding alone on all cores, and the encoder's forward alone on tensors in
memory. What bounds an embedding run is the slower of them; on a processor both share the cores, so the bound stated is
that of doing one after the other on all cores as well (``both in turn``). The loop and the floors run in processes of
their own (``embed_others.py``), where OpenMP waits as it does by default; ours waits as ``selftaught apply`` lets it.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded, as the command does it

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from common import compared, machine, rounds, show, store
from peers import rate_of
from skimage import data as photographs

import selftaught

OTHERS = Path(__file__).with_name("embed_others.py")

SIDE = 256


def write_folder(folder: Path, n: int) -> list[Path]:
    """n JPEG files of 256x256 pixels, quality 90, cut from photographs."""
    rng = np.random.default_rng(0)
    sources = [cv2.cvtColor(make(), cv2.COLOR_RGB2BGR) for make in (photographs.astronaut, photographs.coffee)]
    folder.mkdir()
    for i in range(n):
        image = sources[i % len(sources)]
        top, left = (int(rng.integers(0, side - SIDE + 1)) for side in image.shape[:2])
        crop = image[top : top + SIDE, left : left + SIDE]
        cv2.imwrite(str(folder / f"{i:05d}.jpg"), crop, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return sorted(folder.iterdir())


def measure(root: Path, name: str, size: int, images: int, count: int) -> dict[str, Any]:
    """Images per second of every contender for one encoder."""
    photos = root / f"{name}-photos"
    files = write_folder(photos, images)
    run = selftaught.train(
        "simclr", str(photos), out=str(root / name), encoder=name, image_size=size, steps=1, batch_size=16,
        knn_every=0.0, quiet=True, loggers=["none"], projector="32-16",
    )  # fmt: skip
    outs = iter(range(1000))

    def apply() -> float:
        began = time.perf_counter()
        run.apply(str(photos), root / f"{name}-{next(outs)}.npy")
        return len(files) / (time.perf_counter() - began)

    def other(what: str) -> float:
        return rate_of(OTHERS, what, photos, name, size)

    contenders = {
        "selftaught apply": apply,
        "torchvision loop (fp32)": lambda: other("loop"),
        "decode alone": lambda: other("decode"),
        "forward alone": lambda: other("forward"),
        "both in turn": lambda: 1 / (1 / other("decode") + 1 / other("forward")),
    }
    found = compared(rounds(contenders, count), "selftaught apply")
    show(f"{name} at {size} pixels", found, "img/s")
    return {"encoder": name, "size": size, "images": images} | found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1536, help="for the larger encoder; the small one has six times")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    result: dict[str, Any] = {"work": "embedding a folder of 256x256 JPEG files, images per second"}
    result |= {"machine": machine(), "runs": []}
    with tempfile.TemporaryDirectory() as temporary:
        for name, size, times in (("resnet10-narrow", 64, 6), ("resnet18", 128, 1)):
            result["runs"].append(measure(Path(temporary), name, size, times * options.images, options.rounds))
    store("embed", result)


if __name__ == "__main__":
    main()
