"""Embedding a folder of JPEG files: ``apply`` against a plain torchvision DataLoader loop, and the two floors.

    python benchmarks/speed/embed.py [--images 1536] [--rounds 3]

The floors are measured on the same files: decoding alone on all cores, and the encoder's forward alone on tensors in
memory. What bounds an embedding run is the slower of them; on a processor both share the cores, so the bound stated is
that of doing one after the other on all cores as well (``both in turn``).
"""

from __future__ import annotations

import selftaught  # isort: skip  (before torch, as on the command line: it says how OpenMP's threads wait)

import argparse
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from common import compared, machine, rounds, show, store
from PIL import Image
from skimage import data as photographs
from torch.utils.data import DataLoader, Dataset

from selftaught.engine.precision import autocast_dtype, cores

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


class Plain(Dataset):
    """What people write: PIL, torchvision's resize, crop, tensor, normalise."""

    def __init__(self, files: list[Path], size: int) -> None:
        from torchvision import transforms as tv

        self.files = files
        steps = [tv.Resize(size), tv.CenterCrop(size), tv.ToTensor(), tv.Normalize([0.5] * 3, [0.25] * 3)]
        self.transform = tv.Compose(steps)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(Image.open(self.files[index]).convert("RGB"))


def plain_loop(files: list[Path], size: int, encoder: torch.nn.Module) -> float:
    began = time.perf_counter()
    with torch.inference_mode():
        torch.cat([encoder(batch) for batch in DataLoader(Plain(files, size), batch_size=256, num_workers=2)])
    return len(files) / (time.perf_counter() - began)


def decode_floor(files: list[Path]) -> float:
    cv2.setNumThreads(0)
    began = time.perf_counter()
    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(lambda path: cv2.imread(str(path), cv2.IMREAD_COLOR), files))
    return len(files) / (time.perf_counter() - began)


def forward_floor(encoder: torch.nn.Module, size: int, n: int) -> float:
    dtype = autocast_dtype("auto", "cpu")
    x = torch.randn(256, 3, size, size).contiguous(memory_format=torch.channels_last)
    began, done = time.perf_counter(), 0
    autocast = torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None)
    with torch.inference_mode(), autocast:
        while done < n:
            encoder(x)
            done += len(x)
    return done / (time.perf_counter() - began)


def measure(root: Path, name: str, size: int, images: int, count: int) -> dict[str, Any]:
    """Images per second of every contender for one encoder."""
    photos = root / f"{name}-photos"
    files = write_folder(photos, images)
    run = selftaught.train(
        "simclr", str(photos), out=str(root / name), encoder=name, image_size=size, steps=1, batch_size=16,
        knn_every=0.0, quiet=True, loggers=["none"], projector="32-16",
    )  # fmt: skip
    encoder, outs = run.encoder, iter(range(1000))

    def apply() -> float:
        began = time.perf_counter()
        run.apply(str(photos), root / f"{name}-{next(outs)}.npy")
        return len(files) / (time.perf_counter() - began)

    contenders = {
        "selftaught apply": apply,
        "torchvision loop (fp32)": lambda: plain_loop(files, size, encoder),
        "decode alone": lambda: decode_floor(files),
        "forward alone": lambda: forward_floor(encoder, size, len(files)),
        "both in turn": lambda: 1 / (1 / decode_floor(files) + 1 / forward_floor(encoder, size, len(files))),
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
