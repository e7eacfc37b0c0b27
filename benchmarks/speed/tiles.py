"""Restoring large pictures in tiles: against the network on one large tensor, and the memory that an 8K picture takes.

    python benchmarks/speed/tiles.py [--row speed] [--method multi-output-deblur rrformer] [--rounds 3]
    python benchmarks/speed/tiles.py --row memory

Thousands of pixels per second of systems' laptop forms: in the tiles that ``apply`` makes, and on the whole picture
as one tensor, for who has the memory. The tiles may be no slower than 85 % of the whole. The picture is half as
wide again as the largest tile that its network gets. The row of memory is a process of its own that applies the run to
a picture of 7680 x 4320 (minutes), and one for 64 x 64: the largest size of each, which may be 3 GiB. Each row is
stored as soon as it is measured, and rows that are not measured now are kept from an earlier run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from common import compared, machine, rounds, show, store, stored
from skimage import data as photographs

import selftaught
from selftaught.run.outputs._tiles import fitting_tile
from selftaught.run.outputs.image import restore

METHODS = ("multi-output-deblur", "c-bsn", "rrformer", "srresnet")

WORK = "large pictures in tiles, by laptop networks; thousands of pixels per second"
EIGHT_K = (4320, 7680)
MEASURED = """
import resource, sys, time
import selftaught
run = selftaught.load(sys.argv[1])
began = time.perf_counter()
run.apply(sys.argv[2], sys.argv[3])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, time.perf_counter() - began)
"""


def picture(height: int, width: int) -> np.ndarray:
    """A photograph, mirrored until it is large enough, with noise: (H, W, 3) uint8."""
    tile = photographs.astronaut()
    pair = np.concatenate((tile, tile[:, ::-1]), 1)
    block = np.concatenate((pair, pair[::-1]), 0)
    repeats = (-(-height // block.shape[0]), -(-width // block.shape[1]), 1)
    whole = np.tile(block, repeats)[:height, :width]
    noise = np.random.default_rng(0).integers(-12, 13, whole.shape, dtype=np.int16)
    return np.clip(whole.astype(np.int16) + noise, 0, 255).astype(np.uint8)


def folder_of(path: Path, height: int, width: int) -> Path:
    """A folder that holds such a picture as a PNG file."""
    path.mkdir(parents=True)
    cv2.imwrite(str(path / "picture.png"), picture(height, width))
    return path


def speed(run: Any, side: int, count: int) -> dict[str, Any]:
    """Pixels per second, in turns; a side of 0 is chosen."""
    method = run.method.eval()
    network = method.deliverable()
    side = side or fitting_tile(method, network, torch.rand(1, 3, 1024, 1024)) * 3 // 2 // 256 * 256
    image = picture(side, side).astype(np.float32) / 255
    x = torch.from_numpy(image).permute(2, 0, 1)[None].contiguous()
    tile = fitting_tile(method, network, x)

    def timed(work: Any) -> float:
        began = time.perf_counter()
        work()
        return side * side / (time.perf_counter() - began) / 1000

    def whole() -> None:
        with torch.inference_mode():
            network(x)

    contenders = {
        "tiles": lambda: timed(lambda: restore(method, image)),
        "the network on one tensor": lambda: timed(whole),
    }
    found = compared(rounds(contenders, count), "tiles")
    show(f"{method.slug}, {side} x {side}, tiles of {tile} at most", found, "kpx/s")
    return {"network": method.slug, "side": side, "largest tile": tile, "rounds": count} | found


def memory(run: Path, root: Path) -> dict[str, float]:
    """GiB of a process that restores an 8K picture, and of one that restores a small one."""
    found: dict[str, float] = {}
    for name, size in (("64 x 64", (64, 64)), ("8K", EIGHT_K)):
        inputs = root / f"in {name}"
        subprocess.run([sys.executable, __file__, "--make", str(inputs), *map(str, size)], check=True)
        command = [sys.executable, "-c", MEASURED, str(run), str(inputs), str(root / f"out {name}")]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        found[f"apply to a picture of {name}"] = round(float(lines[-2]), 2)
        print(f"  {name:10s} {float(lines[-2]):.2f} GiB, {float(lines[-1]):.1f} s", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", choices=("speed", "memory", "both"), default="both")
    parser.add_argument("--method", nargs="+", default=METHODS, help="systems of images")
    parser.add_argument("--side", type=int, default=0, help="of the picture that is timed; 0 chooses")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--make", nargs=3, metavar=("FOLDER", "HEIGHT", "WIDTH"), help="only write such a picture")
    options = parser.parse_args()
    if options.make:
        folder_of(Path(options.make[0]), int(options.make[1]), int(options.make[2]))
        return
    torch.set_num_threads(options.threads)
    result: dict[str, Any] = {"work": WORK, "machine": machine(), "runs": [], "peak GiB": {}}
    result |= {name: part for name, part in stored("tiles").items() if name in ("runs", "peak GiB")}
    for slug in options.method:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            run = selftaught.train(
                slug, "photos:whole", out=str(root / "run"), preset="laptop", steps=1, quiet=True, workers=0,
                loggers=["none"], knn_every=0.0,
            )  # fmt: skip
            if options.row != "memory":
                others = [one for one in result["runs"] if one["network"] != slug]
                result["runs"] = [*others, speed(run, options.side, options.rounds)]
                store("tiles", result)
            if options.row != "speed":
                peaks = memory(root / "run", root)
                result["peak GiB"] |= {f"{slug}, {name}": gib for name, gib in peaks.items()}
                store("tiles", result)


if __name__ == "__main__":
    main()
