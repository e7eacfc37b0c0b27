"""How fast pairs for restoration are made: a patch of 192 in one of eight orientations, and its degraded copy.

    python benchmarks/speed/degrade.py [--images 256] [--rounds 5]

The copy is four times smaller (bicubic, antialiased), noisy (Gaussian, 0 to 25 of 255) and a JPEG of quality 40 to 95.
Contenders take turns within each round, one process and one thread each. Peers: albumentations, with PIL's antialiased
bicubic, for albumentations has none, torchvision's transforms on tensors, and kornia's. A second row leaves the JPEG
out and blurs by a drawn kernel of 15 pixels first. libjpeg alone, as torchvision and albumentations use it, is timed as
well. With the extra ``kernels`` our resizing, noise and what a JPEG loses are compiled by Numba; the result says
whether that was so.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}

import cv2
import numpy as np
import torch
from common import compared, machine, rounds, show, store
from peers import peer
from PIL import Image
from skimage import data as photographs

from selftaught.views import JPEG, Dihedral, Downsample, GaussianNoise, MotionBlur, RandomCrop, Recipe, View

PATCH, SCALE, BLUR = 192, 4, 15
Make = Callable[[np.ndarray], Any]


def ours(blurred: bool) -> Make:
    """A recipe as methods have it, rendered sample by sample."""
    middle = (MotionBlur(BLUR),) if blurred else ()
    last = () if blurred else (JPEG((40, 95)),)
    ops = (*middle, Downsample(SCALE), GaussianNoise((0.0, 25.0)), *last)
    recipe = Recipe((View("high", "image", (RandomCrop(PATCH), Dihedral())), View("low", "high", ops)))
    rng = np.random.default_rng(0)

    def make(image: np.ndarray) -> Any:
        return recipe.render({"image": image}, recipe.sample(rng, {"image": image.shape}))

    return make


def albumentations(blurred: bool) -> Make | None:
    """The same from albumentations' transforms."""
    a = peer("albumentations")
    if a is None:
        return None
    cut = a.Compose([a.RandomCrop(PATCH, PATCH), a.D4(p=1)])
    first = a.Compose([a.MotionBlur(blur_limit=(BLUR, BLUR), p=1)] if blurred else [])
    noise = a.GaussNoise(std_range=(0.0, 25 / 255), p=1)
    last = a.Compose([noise] if blurred else [noise, a.ImageCompression(quality_range=(40, 95), p=1)])

    def make(image: np.ndarray) -> Any:
        high = cut(image=image)["image"]
        small = Image.fromarray(first(image=high)["image"]).resize((PATCH // SCALE,) * 2, Image.Resampling.BICUBIC)
        return high, last(image=np.asarray(small))["image"]

    return make


def torchvision(blurred: bool) -> Make:
    """The same from torchvision's transforms on uint8 tensors."""
    from torchvision.transforms import v2

    cut = v2.Compose([v2.RandomCrop(PATCH), v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()])
    kernel = torch.zeros(3, 1, BLUR, BLUR)
    compress = v2.JPEG((40, 95))

    def make(image: np.ndarray) -> Any:
        high = cut(torch.from_numpy(image).permute(2, 0, 1))
        high = torch.rot90(high, int(torch.randint(4, ())), (1, 2))
        seen = high
        if blurred:
            kernel.zero_()
            turn = float(torch.rand(())) * np.pi
            for t in np.linspace(-7, 7, 29):
                kernel[:, 0, round(7 + t * np.sin(turn)), round(7 + t * np.cos(turn))] += 1 / 29
            padded = torch.nn.functional.pad(seen[None].float(), (7, 7, 7, 7), mode="reflect")
            seen = torch.nn.functional.conv2d(padded, kernel, groups=3)[0].round().byte()
        size = [PATCH // SCALE] * 2
        small = v2.functional.resize(seen, size, v2.InterpolationMode.BICUBIC, antialias=True).float() / 255
        noisy = small + float(torch.rand(())) * 25 / 255 * torch.randn_like(small)
        low = (noisy.clamp(0, 1) * 255).round().byte()
        return high, low if blurred else compress(low)

    return make


def kornia(blurred: bool) -> Make | None:
    """The same from kornia's augmentations on float tensors; its noise has one deviation, the middle of the range."""
    if peer("kornia") is None:
        return None
    from kornia import augmentation as k
    from kornia.constants import Resample

    turns = (k.RandomHorizontalFlip(p=0.5), k.RandomVerticalFlip(p=0.5), k.RandomRotation90((0, 3), p=1.0))
    cut = torch.nn.Sequential(k.RandomCrop((PATCH, PATCH)), *turns)
    small = k.Resize((PATCH // SCALE,) * 2, resample=Resample.BICUBIC, antialias=True)
    noise = k.RandomGaussianNoise(std=12.5 / 255, p=1.0)
    ends = (k.RandomMotionBlur(BLUR, 180.0, 0.0, p=1.0), small, noise)
    degrade = torch.nn.Sequential(*ends if blurred else (small, noise, k.RandomJPEG((40.0, 95.0), p=1.0)))

    def make(image: np.ndarray) -> Any:
        with torch.inference_mode():
            high = cut(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)
            return high, degrade(high).clamp(0, 1)

    return make


def rate(make: Make, images: list[np.ndarray]) -> Callable[[], float]:
    make(images[0])  # what is compiled at the first call

    def work() -> float:
        began = time.process_time()
        for image in images:
            make(image)
        return len(images) / (time.process_time() - began)

    return work


def codec(images: list[np.ndarray]) -> Callable[[], float]:
    """libjpeg alone, there and back, on such small noisy copies: no recipe that writes files is faster than that."""
    rng = np.random.default_rng(0)
    small = [
        np.clip(image[:PATCH:SCALE, :PATCH:SCALE] + rng.normal(0, 12.5, (PATCH // SCALE,) * 2 + (3,)), 0, 255)
        .round().astype(np.uint8) for image in images
    ]  # fmt: skip

    def once(image: np.ndarray) -> Any:
        return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 70])[1], cv2.IMREAD_COLOR)

    return rate(once, small)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    before = machine()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    sources = [make() for make in (photographs.astronaut, photographs.coffee)]
    images = [np.ascontiguousarray(sources[i % 2][:400, :500]) for i in range(options.images)]
    work = f"patches of {PATCH} and copies {SCALE} times smaller, pairs per second of processor time"
    result: dict[str, Any] = {"work": work, "machine": before, "rounds": options.rounds, "runs": []}
    result["compiled"] = find_spec("numba") is not None
    for blurred in (False, True):
        contenders = {"selftaught": ours(blurred), "torchvision": torchvision(blurred)}
        others = {"albumentations": albumentations(blurred), "kornia": kornia(blurred)}
        contenders |= {name: other for name, other in others.items() if other is not None}
        timed = {name: rate(make, images) for name, make in contenders.items()}
        rates = rounds(timed | ({} if blurred else {"JPEG alone": codec(images)}), options.rounds)
        run = {"degradation": "blur, bicubic, noise" if blurred else "bicubic, noise, JPEG"}
        run |= compared(rates, "selftaught")
        show(str(run["degradation"]), run, "pairs/s")
        result["runs"].append(run)
    store("degrade", result)


if __name__ == "__main__":
    sys.exit(main())
