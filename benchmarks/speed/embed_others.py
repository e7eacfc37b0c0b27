"""What ``embed.py`` compares with, each in a process of its own; prints images per second.

    python benchmarks/speed/embed_others.py loop|decode|forward FOLDER ENCODER SIZE

``loop`` is what people write: PIL, torchvision's transforms, a DataLoader with two workers, float32. ``decode`` reads
every file with OpenCV on all cores; ``forward`` runs the encoder on tensors in memory in the precision that ``apply``
chooses. Files and network are warmed up before the clock starts.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from selftaught import networks
from selftaught.engine.precision import autocast_dtype, cores

BATCH = 256


class Plain(Dataset):
    """PIL, torchvision's resize, crop, tensor, normalise."""

    def __init__(self, files: list[Path], size: int) -> None:
        from torchvision import transforms as tv

        self.files = files
        steps = [tv.Resize(size), tv.CenterCrop(size), tv.ToTensor(), tv.Normalize([0.5] * 3, [0.25] * 3)]
        self.transform = tv.Compose(steps)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(Image.open(self.files[index]).convert("RGB"))


def loop(files: list[Path], encoder: torch.nn.Module, size: int) -> int:
    with torch.inference_mode():
        found = [encoder(batch) for batch in DataLoader(Plain(files, size), batch_size=BATCH, num_workers=2)]
    return len(torch.cat(found))


def decode(files: list[Path], encoder: torch.nn.Module, size: int) -> int:
    cv2.setNumThreads(0)
    with ThreadPoolExecutor(cores()) as pool:
        return len(list(pool.map(lambda path: cv2.imread(str(path), cv2.IMREAD_COLOR), files)))


def forward(files: list[Path], encoder: torch.nn.Module, size: int) -> int:
    dtype = autocast_dtype("auto", "cpu")
    encoder = encoder.to(memory_format=torch.channels_last)
    x = torch.randn(BATCH, 3, size, size).contiguous(memory_format=torch.channels_last)
    done = 0
    with torch.inference_mode(), torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        while done < len(files):
            done += len(encoder(x))
    return done


def main(what: str, folder: str, name: str, size: int) -> None:
    files = sorted(Path(folder).iterdir())
    encoder = networks.encoder(name, image_size=size).eval()
    work = {"loop": loop, "decode": decode, "forward": forward}[what]
    work(files[:BATCH], encoder, size)
    began = time.perf_counter()
    done = work(files, encoder, size)
    print(done / (time.perf_counter() - began))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
