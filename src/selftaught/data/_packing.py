"""What every packed cache does: written beside its place and moved there whole, opened only where it is what it was."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from filelock import FileLock

from selftaught._reading import json_of
from selftaught.data.source import Source, digest
from selftaught.errors import UserError

__all__ = ["FORMAT", "PIXELS", "Progress", "check_room", "keep", "move_in", "read_head", "reduce_to", "spots", "write"]

Progress = Callable[[int, int], None]
Pack = TypeVar("Pack")

FORMAT, PIXELS = 1, "pixels.bin"
_INDEX, _SAMPLES, _HEAD = "index.npz", "samples.json", "pack.json"
_SPOT_CHECKS = 32


def keep(
    source: Source,
    folder: str | Path,
    key: list[Any],
    owner: list[Any],
    found: Callable[[Path], Pack | None],
    build: Callable[[Path, str], None],
) -> Pack:
    """The pack of a source below ``folder``, made now where there is none that is whole.

    Two processes at a time make it once: the second waits. Packs of the same owner with another key, whose content has
    changed since, are removed; a reader that has one mapped keeps its pages.

    Args:
        source: what is packed.
        folder: where packs lie; it is made if need be.
        key: what the content depends on.
        owner: what is packed how, whatever its content.
        found: opens the pack at a place, None where it is damaged, of another content, or not there.
        build: makes the pack at a place; given the owner to note.

    Raises:
        UserError: it can't be written.
    """
    folder = Path(folder)
    slug = re.sub(r"[^\w.-]+", "-", source.name).strip("-")[:40] or "source"
    target, belongs = folder / f"{slug}-{digest(FORMAT, *key)[:16]}", digest("pack", *owner)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            there = found(target)
            if there is None:
                build(target, belongs)
                _remove_outdated(folder, target, belongs)
                there = found(target)
            if there is None:
                raise UserError(f"{target}: the cache of {source.name} is not what was written; is the disk all right?")
            return there
    except OSError as error:
        short = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise UserError(
            f"{folder}: the cache of {source.name} can't be written ({short}); choose another folder or go without"
        ) from None


def read_head(target: Path, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """What pack.json says, where it says what is wanted and the files beside it are whole; else None."""
    try:
        head: dict[str, Any] = json_of(target / _HEAD)
        same = all(head[name] == value for name, value in {"format": FORMAT, **wanted}.items())
        whole = (
            head["index"] == zlib.crc32((target / _INDEX).read_bytes())
            and head["samples"] == zlib.crc32((target / _SAMPLES).read_bytes())
            and head["bytes"] == (target / PIXELS).stat().st_size
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return head if same and whole else None


def move_in(target: Path, fill: Callable[[Path], None]) -> None:
    """Let ``fill`` write into a folder beside the target, then put it there in one step; nothing is left of a stop."""
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        fill(part)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write(part: Path, index: dict[str, np.ndarray], samples: dict[str, Any], head: dict[str, Any]) -> None:
    """The three small files of a pack, once its pixels are written."""
    np.savez(part / _INDEX, **index)  # type: ignore[arg-type]
    (part / _SAMPLES).write_text(json.dumps(samples))
    sums = {"index": zlib.crc32((part / _INDEX).read_bytes()), "samples": zlib.crc32((part / _SAMPLES).read_bytes())}
    size = (part / PIXELS).stat().st_size
    (part / _HEAD).write_text(json.dumps({"format": FORMAT, **head, "bytes": size, **sums}))


def spots(count: int) -> np.ndarray:
    """At most 32 of ``count`` places, spread evenly."""
    return np.unique(np.linspace(0, count - 1, min(_SPOT_CHECKS, count)).astype(np.int64))


def reduce_to(image: np.ndarray, max_side: int) -> np.ndarray:
    """An image (H, W, C) uint8 whose shorter side is at most `max_side`, by area averaging; smaller ones come back as
    they are.
    """
    height, width = image.shape[:2]
    short = min(height, width)
    if short <= max_side:
        return np.ascontiguousarray(image)
    size = (max(round(width * max_side / short), 1), max(round(height * max_side / short), 1))
    small = np.empty((size[1], size[0], image.shape[2]), dtype=np.uint8)
    for c in range(0, image.shape[2], 4):  # OpenCV averages areas of at most four channels at a time
        some = np.ascontiguousarray(image[:, :, c : c + 4])
        small[:, :, c : c + 4] = cv2.resize(some, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], -1)
    return small


def check_room(source: Source, wanted: float, folder: Path) -> None:
    """Refuse a pack of so many bytes that the disk has no room for."""
    free = shutil.disk_usage(folder).free
    if wanted > free:
        raise UserError(
            f"{folder}: the cache of {source.name} wants about {wanted / 1e9:.3g} GB and the disk has "
            f"{free / 1e9:.3g} GB free; choose another folder, a smaller side, or go without the cache"
        )


def _remove_outdated(folder: Path, target: Path, owner: str) -> None:
    for other in folder.glob(f"*/{_HEAD}"):
        try:
            same = json_of(other).get("owner") == owner
        except (OSError, ValueError):
            continue
        if same and other.parent != target:
            shutil.rmtree(other.parent, ignore_errors=True)
