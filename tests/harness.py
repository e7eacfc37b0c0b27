"""What is attacked and how: tiny runs of every kind, kills at every file put in place, twelve damages of any file.

The tests attack with it in seconds; `benchmarks/robustness` counts with the same over every kind of run. A new kind of
output needs a tiny run here (a test says so), and is then attacked by all of them; files that a run writes are listed,
never known by name.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tests.conftest import write_photos

# ---- tiny runs -----------------------------------------------------------------------------------------------------
_ALL: dict[str, Any] = {"workers": 0, "quiet": True, "knn_every": 0, "loggers": ["none"], "precision": "32"}
_ENCODER = {"encoder": "cnn-small", "image_size": 16, "projector": "16-8", "augment": "grey", "batch_size": 16}


@dataclass(frozen=True)
class Tiny:
    """A run of a second or two.

    Attributes:
        slug: the method.
        data: source, or what writes one into a folder and returns it.
        options: of `selftaught.train`.
        begins_with: the tiny run that it starts from, "" for none.
        given: writes what it is applied to and returns it; None for its own data.
        more: options of ``apply``.
        outs: what ``apply`` writes, beside one another.
    """

    slug: str
    data: str | Callable[[Path], str]
    options: dict[str, Any] = field(default_factory=dict)
    begins_with: str = ""
    given: Callable[[Path], str] | None = None
    more: dict[str, Any] = field(default_factory=dict)
    outs: tuple[str, ...] = ("found.parquet",)

    def source(self, folder: Path) -> str:
        """The data, written into ``folder`` where it is made."""
        return self.data if isinstance(self.data, str) else self.data(folder)

    def input(self, folder: Path) -> str:
        """What it is applied to."""
        return self.given(folder) if self.given is not None else self.source(folder)


def _grey_photos(folder: Path) -> str:
    if not (folder / "grey").is_dir():
        write_photos(folder / "grey", count=6, side=32, classes=1, channels=1)
    return str(folder / "grey")


def _photos(folder: Path) -> str:
    if not (folder / "photos").is_dir():
        write_photos(folder / "photos", count=4, side=24, classes=1)
    return str(folder / "photos")


def _walks(folder: Path) -> str:
    """Two folders of frames of a textured wall that slides by."""
    if (folder / "walks").is_dir():  # written anew they would be other files to a run that learnt from them
        return str(folder / "walks")
    rng = np.random.default_rng(0)
    for name in ("first", "second"):
        wall = cv2.GaussianBlur(rng.integers(0, 256, (40, 100, 3), dtype=np.uint8), (0, 0), 1.0)
        (folder / "walks" / name).mkdir(parents=True, exist_ok=True)
        for t in range(6):
            cv2.imwrite(str(folder / f"walks/{name}/{t:03d}.png"), np.ascontiguousarray(wall[:, 2 * t : 2 * t + 48]))
    return str(folder / "walks")


TINY_RUNS: dict[str, Tiny] = {
    "encoder": Tiny(
        "simclr", "digits?n=60", _ENCODER | {"steps": 3, "checkpoint_steps": 1}, outs=("found.parquet", "found.npy")
    ),
    "two stages, EMA, best weights": Tiny(
        "frame-projections", "basic-motions",
        {"scales": 4, "max_scale": 16.0, "batch_size": 16, "epochs": 1, "ema": 0.9, "checkpoint_steps": 1},
    ),
    "state per sample": Tiny("isogclr", "digits?n=60", _ENCODER | {"steps": 3, "checkpoint_steps": 1}),
    "queue": Tiny(
        "swav", "digits?n=80",
        _ENCODER | {"prototypes": "6", "local_crops": 1, "queue": 32, "queue_start": 0.0, "steps": 4,
                    "checkpoint_steps": 1},
    ),
    "restorer": Tiny(
        "c-bsn", _grey_photos,
        {"patch": 24, "width": 16, "modules": 1, "steps": 3, "batch_size": 4, "checkpoint_steps": 1},
        outs=("found",),
    ),
    "GAN of two stages": Tiny(
        "srgan", "photos:whole",
        {"blocks": 1, "features": 8, "patch": 32, "content": "features", "discriminator_width": 4,
         "pretrain_steps": 2, "steps": 2, "batch_size": 2, "norm": "bn", "checkpoint_steps": 1},
        given=_photos, outs=("found",),
    ),
    "classifier": Tiny(
        "supervised", "digits?n=60",
        {"encoder": "cnn-small", "image_size": 16, "augment": "grey", "steps": 2, "batch_size": 16},
    ),
    "unlearning": Tiny(
        "laf", "digits?n=60", {"forget": "class=3", "vae_epochs": 0.5, "steps": 2, "checkpoint_steps": 1},
        begins_with="classifier",
    ),
    "image and text": Tiny(
        "clip", "scenes?train=12&test=4&captions=2&side=20",
        {"encoder": "cnn-small", "image_size": 16, "dim": 8, "tokeniser": "words-256", "context": 10, "text_width": 16,
         "text_heads": 2, "text_layers": 1, "preset": "laptop", "steps": 2, "batch_size": 4},
    ),
    "depth": Tiny(
        "monodepth2", _walks,
        {"encoder": "small", "pose_encoder": "small", "height": 32, "width": 32, "scales": 1, "batch_size": 4,
         "steps": 2, "intrinsics": "fov=70", "by": "ratio:0.5"},
        outs=("found",),
    ),
    "points": Tiny(
        "masked-scene-modeling", "point-rooms?points=300&train=3&test=2",
        {"voxel": 0.5, "widths": "8-8-16", "up_widths": "16-8-8", "blocks": 1, "attention": 1, "attention_levels": 1,
         "head": "16-8", "prototypes": 8, "drop_path": 0.0, "attention_dropout": 0.0, "crop": 200, "steps": 2,
         "batch_size": 2},
        outs=("found",),
    ),
    "clip": Tiny(
        "dadeblur", "pans?train=4&test=2&frames=30&side=48&direction=vertical",
        {"network": "frame-stack", "width": 4, "blocks": 1, "exposure": 3, "patch": 32, "magnitude_encoder": "small",
         "magnitude_widths": "4-4-4-4-4", "magnitude_fusion": 4, "magnitude_blocks": 1, "longest": 10.0,
         "blur_model": "linear", "magnitude_offset": 2.0, "magnitude_steps": 2, "adapt_patch": 32, "adapt_epochs": 2,
         "steps": 2, "batch_size": 2},
        given=lambda folder: "pans?train=1&test=1&frames=8&side=48&direction=vertical",
        more={"into": "frames"}, outs=("found",),
    ),
    "edit": Tiny(
        "np-edit", "shapes?side=16&train=6&test=3",
        {"base": "unet", "image_size": 16, "flow_width": 8, "flow_patch": 2, "judge_width": 8, "teacher_steps": 1,
         "judge_steps": 1, "warmup_steps": 1, "fake_updates": 1, "steps": 1, "batch_size": 4},
        more={"instruction": "make it red"}, outs=("found",),
    ),
    "segmentation": Tiny(
        "global-local-seg", "phantoms?train=3&test=2",
        {"image_size": 32, "widths": "4-8-8", "decoder_blocks": 1, "norm_momentum": 0.1, "preset": "laptop",
         "structures": "", "steps": 2, "global_steps": 2, "local_steps": 2, "batch_size": 4, "finetune_batch": 4,
         "look_every": 2, "labelled_volumes": 1, "validation_volumes": 1},
        outs=("found",),
    ),
    "weights": Tiny(
        "meta-loss-rescaling", "digits?wrong_labels=0.3&n=60",
        {"encoder": "cnn-small", "image_size": 16, "steps": 2, "batch_size": 8, "meta": "digits?n=40"},
        outs=("found.csv", "found.parquet"),
    ),
}  # fmt: skip


def train_tiny(kind: str, out: Path, place: Path, **more: Any) -> Any:
    """Train a tiny run into ``out``, or go on where one was begun there; ``place`` holds what it is made of.

    Args:
        kind: of `TINY_RUNS`.
        out: its folder.
        place: of its data, and of the run that it begins with.
        **more: further options, such as another seed.

    Returns:
        the run.
    """
    import selftaught

    tiny = TINY_RUNS[kind]
    if (out / "config.yaml").exists():
        return selftaught.train(tiny.slug, resume=out, quiet=True, workers=0)
    options = _ALL | tiny.options | more
    if tiny.begins_with:
        first = place / tiny.begins_with
        if not (first / "encoder.safetensors").exists():
            train_tiny(tiny.begins_with, first, place)
        options = options | {"init": str(first)}
    return selftaught.train(tiny.slug, tiny.source(place), out=str(out), **options)


# ---- kills -----------------------------------------------------------------------------------------------------------
class Killed(BaseException):
    """Stands for a SIGKILL within a process: nothing catches it on the way."""


def _die() -> None:
    raise Killed


@contextmanager
def killing(moment: int | None, die: Callable[[], None] = _die) -> Iterator[list[int]]:
    """Die before or after a file is put in its place: ``moment`` 2n is before the n-th, 2n + 1 after it.

    Args:
        moment: None only counts.
        die: how; by default by an exception that nothing catches.

    Yields:
        a list of one number: the moments that have passed.
    """
    passed = [0]
    real = {name: getattr(os, name) for name in ("replace", "rename")}
    real_paths = {name: getattr(Path, name) for name in real}

    def seam(move: Callable[..., Any]) -> Callable[..., Any]:
        def moved(source: Any, target: Any, **more: Any) -> Any:
            if passed[0] == moment:
                die()
            found = move(source, target, **more)
            passed[0] += 2
            if passed[0] - 1 == moment:
                die()
            return found

        return moved

    def of_path(name: str) -> Callable[[Path, Any], Path]:
        def moved(self: Path, target: Any) -> Path:
            getattr(os, name)(self, target)
            return Path(target)

        return moved

    for name, move in real.items():
        setattr(os, name, seam(move))
        setattr(Path, name, of_path(name))
    try:
        yield passed
    finally:
        for name, move in real.items():
            setattr(os, name, move)
            setattr(Path, name, real_paths[name])


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# ---- damages ---------------------------------------------------------------------------------------------------------
def _flipped(whole: bytes) -> bytes:
    changed = bytearray(whole)
    if changed:
        changed[len(changed) * 2 // 3] ^= 0x40
    return bytes(changed)


DAMAGES: dict[str, Callable[[bytes], bytes] | str] = {
    "gone": "gone",
    "a folder": "folder",
    "empty": lambda whole: b"",
    "half": lambda whole: whole[: len(whole) // 2],
    "zeros": lambda whole: bytes(len(whole)),
    "noise": lambda whole: random.Random(0).randbytes(len(whole)),
    "one bit": _flipped,
    "a list": lambda whole: b"[]",
    "null": lambda whole: b"null",
    "a word": lambda whole: b"hello\n",
    "not UTF-8": lambda whole: b"\xff\xfe\xe9\n",
    "a tail": lambda whole: whole + b"more",
}


def harmed(path: Path, damage: str) -> None:
    """Damage a file."""
    before, way = path.read_bytes(), DAMAGES[damage]
    path.unlink()
    if way == "folder":
        path.mkdir()
    elif callable(way):
        path.write_bytes(way(before))


def damaged(whole: Path, place: Path, name: str, damage: str) -> Path:
    """A copy of a run at ``place`` with one of its files damaged."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(whole, place)
    harmed(place / name, damage)
    return place
