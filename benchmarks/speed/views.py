"""How fast two SimCLR views of a 96x96 JPEG are made: decoding, views, batches, through torch's DataLoader.

    python benchmarks/speed/views.py [--images 8192] [--rounds 7] [--workers 0 2]

Contenders take turns within each round, so ratios are paired and a busy machine slows all alike. Peers: lightly's
SimCLRTransform, stable-pretraining's recipe, and SimCLR's from torchvision and PIL, of which such pipelines are made.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
from common import compared, machine, rounds, show, store
from peers import lightly_views, stable_pretraining_views
from PIL import Image, ImageFilter
from skimage import data as photographs
from torch.utils.data import DataLoader, Dataset

from selftaught import views

SIZE, BATCH = 96, 128


def jpegs(n: int) -> list[bytes]:
    """n JPEG files of 96x96 pixels, quality 90, cut from scikit-image's photographs at half size."""
    rng = np.random.default_rng(0)
    sources = [cv2.cvtColor(make(), cv2.COLOR_RGB2BGR) for make in (photographs.astronaut, photographs.coffee)]
    sources = [cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for image in sources]
    files = []
    for i in range(n):
        image = sources[i % len(sources)]
        top, left = (int(rng.integers(0, side - SIZE + 1)) for side in image.shape[:2])
        crop = image[top : top + SIZE, left : left + SIZE]
        files.append(cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    return files


class Ours(Dataset):
    """Decoded once with OpenCV, both views rendered straight into uint8 batches."""

    def __init__(self, files: list[bytes]) -> None:
        self.files = files
        self.views = views.simclr(SIZE)
        self.rng = np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self.files)

    def __getitems__(self, indices: list[int]) -> list[torch.Tensor]:
        params = [pipeline.sample_batch(self.rng, len(indices), SIZE, SIZE) for pipeline in self.views]
        out = torch.empty(len(self.views), len(indices), 3, SIZE, SIZE, dtype=torch.uint8)
        places = out.numpy()
        for row, index in enumerate(indices):
            image = cv2.imdecode(np.frombuffer(self.files[index], np.uint8), cv2.IMREAD_COLOR_RGB)
            for view, pipeline in enumerate(self.views):
                views.render_into(places[view, row], image, pipeline, params[view][row])
        return list(out)


class DecodeOnly(Dataset):
    """The floor: OpenCV's decoding alone."""

    def __init__(self, files: list[bytes]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitems__(self, indices: list[int]) -> torch.Tensor:
        out = np.empty((len(indices), SIZE, SIZE, 3), np.uint8)
        for row, index in enumerate(indices):
            out[row] = cv2.imdecode(np.frombuffer(self.files[index], np.uint8), cv2.IMREAD_COLOR_RGB)
        return torch.from_numpy(out)


class Peer(Dataset):
    """PIL decoding and a transform that returns a list of float tensors, batched by torch's own collate."""

    def __init__(self, files: list[bytes], transform: Callable[[Any], list[torch.Tensor]]) -> None:
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        return self.transform(Image.open(io.BytesIO(self.files[index])).convert("RGB"))


class AsDict:
    """A transform of dictionaries with an image, as one of images."""

    def __init__(self, transform: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self.transform = transform

    def __call__(self, image: Any) -> list[torch.Tensor]:
        return [view["image"] for view in self.transform({"image": image})["views"]]


class PilBlur:
    """PIL's Gaussian blur with a radius from 0.1 to 2, half of the time."""

    def __call__(self, image: Any) -> Any:
        if torch.rand(()) < 0.5:
            return image
        return image.filter(ImageFilter.GaussianBlur(0.1 + 1.9 * float(torch.rand(()))))


class TwoTorchvision:
    """The SimCLR recipe from torchvision's own transforms on PIL images, twice."""

    def __init__(self) -> None:
        from torchvision import transforms as tv

        jitter = tv.RandomApply([tv.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8)
        normalise = tv.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        crop = [tv.RandomResizedCrop(SIZE), tv.RandomHorizontalFlip()]
        self.one = tv.Compose([*crop, jitter, tv.RandomGrayscale(0.2), PilBlur(), tv.ToTensor(), normalise])

    def __call__(self, image: Any) -> list[torch.Tensor]:
        return [self.one(image), self.one(image)]


def as_it_is(batch: Any) -> Any:
    return batch


def quiet(_: int = 0) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def loader(source: Dataset, workers: int) -> DataLoader:
    whole = hasattr(source, "__getitems__")
    return DataLoader(
        source,
        batch_size=BATCH,
        num_workers=workers,
        collate_fn=as_it_is if whole else None,
        persistent_workers=workers > 0,
        worker_init_fn=quiet,
    )


def epoch(batches: DataLoader, n: int) -> float:
    """Images per second over one pass."""
    start = time.perf_counter()
    for _ in batches:
        pass
    return n / (time.perf_counter() - start)


def measure(images: int, count: int, workers: int) -> dict[str, Any]:
    """Images per second of every contender; slow ones see a sixteenth of the images."""
    files = jpegs(images)
    few = files[: max(2 * BATCH, images // 16)]
    sources: dict[str, Dataset] = {"selftaught": Ours(files), "decode alone (floor)": DecodeOnly(files)}
    sources["torchvision"] = Peer(few, TwoTorchvision())
    if (transform := lightly_views(SIZE)) is not None:
        sources["lightly as documented"] = Peer(few, transform)
    if (views_of := stable_pretraining_views(SIZE)) is not None:
        sources["stable-pretraining as documented (no blur)"] = Peer(few, AsDict(views_of))
    loaders = {name: (loader(source, workers), len(source)) for name, source in sources.items()}  # type: ignore[arg-type]
    work = {name: lambda b=batches, n=n: epoch(b, n) for name, (batches, n) in loaders.items()}
    return compared(rounds(work, count), "selftaught")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    options = parser.parse_args()
    quiet()
    result: dict[str, Any] = {"work": "two SimCLR views of a 96x96 JPEG, images per second"}
    result |= {"machine": machine(), "rounds": options.rounds, "runs": []}
    for workers in options.workers:
        run = measure(options.images, options.rounds, workers)
        show(f"two views, {workers} workers", run, "img/s")
        result["runs"].append({"workers": workers} | run)
    store("views", result)


if __name__ == "__main__":
    main()
