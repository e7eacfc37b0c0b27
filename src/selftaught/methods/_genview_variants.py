"""Images with a generated variant each: the source that shows both, and the cache that variants lie in."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from selftaught._paths import part_of
from selftaught.data import Source, as_uint8
from selftaught.data.decoding import decode
from selftaught.data.fields import Field
from selftaught.data.mapped import DAMAGED, kept_arrays
from selftaught.data.source import PER_SAMPLE, digest
from selftaught.errors import SampleError, UserError
from selftaught.methods._genview_generators import Generator

GENERATED = "generated"
"""The field of the variants."""
INDEX = "index.npz"
MEND = "choose another --variants"
_ROWS, _SPOT_CHECKS = 64, 32
_PATIENCE = 20.0
"""Seconds between lines that say how far generating has come, on a terminal."""


class WithVariants(Source):
    """The samples of a source, each with a variant in the field ``generated``; the image itself where there is none."""

    def __init__(self, source: Source, *, place: Path | None = None, ready: Source | None = None) -> None:
        """Give images their variants.

        Args:
            source: the images.
            place: folder whose ``index.npz`` names a file for each image; it may be written later.
            ready: variants that lie ready, named as the images are but for the suffix.

        Raises:
            UserError: none of the ready variants has an image's name.
        """
        self.source, self.place, self.ready = source, place, ready
        self.name, self.names, self.modality = source.name, source.names, source.modality
        self.channels, self.depth, self.generated = source.channels, source.depth, source.generated
        self.classes, self.rate, self.values = source.classes, source.rate, source.values
        self.notes, self.left_out = source.notes, source.left_out
        for attribute in PER_SAMPLE:
            setattr(self, attribute, getattr(source, attribute))
        self._files: list[str | None] | None = None
        self._rows: list[int | None] = [None] * len(source)
        if ready is not None:
            places = {_stem(name): row for row, name in enumerate(ready.names)}
            self._rows = [places.get(_stem(name)) for name in source.names]
            if all(row is None for row in self._rows):
                raise UserError(
                    f"generator={ready.name}: no file there is named as an image of {source.name} is, such as "
                    f"{source.names[0]!r}"
                )

    @property
    def fields(self) -> dict[str, Field]:
        """The source's, and the variant."""
        return self.source.fields | {GENERATED: Field("image", self.channels)}

    def read(self, i: int, min_side: int | None = None, **which: Any) -> Any:
        """The image; see `Source.read`."""
        return self.source.read(i, min_side, **which)

    def read_checked(self, i: int) -> Any:
        """The image as its file has it."""
        return self.source.read_checked(i)

    def _field(self, name: str, i: int, min_side: int | None, frames: np.ndarray | None) -> Any:
        if name != GENERATED:
            return self.source.sample(i, [name], min_side, frames)[name]
        return self.variant(i)

    def variant(self, i: int) -> np.ndarray:
        """The variant (H, W, C) of an image; the image where there is none."""
        row, file = self._rows[i], self.file(i)
        if self.ready is not None and row is not None:
            found = self.ready.read(row)
            return as_uint8(found, self.ready.value_range)
        return self.source.read(i) if file is None else load_image(file, self.names[i])

    def file(self, i: int) -> Path | None:
        """The cached variant of an image."""
        if self.place is None:
            return None
        if self._files is None:
            if not (self.place / INDEX).exists():
                return None
            self.hold(read_index(self.place, len(self)))
        name = self._files[i] if self._files else ""
        return self.place.parent / name if name else None

    def hold(self, files: Sequence[str]) -> None:
        """Take the files of the variants, below the cache's folder; "" for an image that has none."""
        self._files = list(files)

    def whole(self) -> bool:
        """Whether every variant that the cache's index names is there, and some of them read are what they were."""
        if self.place is None or not (self.place / INDEX).exists():
            return False
        self.hold(files := read_index(self.place, len(self)))
        root, named = self.place.parent, [name for name in files if name]
        spots = named[:: max(1, len(named) // _SPOT_CHECKS)]
        return bool(files) and all((root / name).is_file() for name in named) and all(_sound(root / n) for n in spots)

    @property
    def with_variant(self) -> int:
        """How many images have a variant."""
        return sum(self._rows[i] is not None or self.file(i) is not None for i in range(len(self)))

    def any_depth(self) -> None:
        """Of the source."""
        super().any_depth()
        self.source.any_depth()

    @property
    def value_range(self) -> Any:
        """The source's."""
        return self.source.value_range

    def range_of(self, field: str) -> Any:
        """The source's, of the variant too, which may be the image itself."""
        return self.source.range_of(self.source.main if field == GENERATED else field)

    def origin(self) -> str:
        """The source's."""
        return self.source.origin()

    def fingerprint(self) -> str:
        """Of the images and of the variants that lie ready."""
        return digest("variants", self.source.fingerprint(), self.ready.fingerprint() if self.ready else "")


def read_index(place: Path, count: int) -> list[str]:
    """The files of so many variants by the index of a folder; none where it is damaged."""
    with contextlib.suppress(*DAMAGED), np.load(place / INDEX, allow_pickle=False) as index:
        files = [str(name) for name in index["files"]]
        return files if len(files) == count else []
    return []


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def squares(source: Source, rows: Any, side: int) -> Iterator[tuple[list[int], Tensor]]:
    """The middles of images, a batch at a time: positions, and (n, C, side, side) uint8; without unreadable ones."""
    kept: list[int] = []
    made: list[Tensor] = []
    for i in rows:
        try:
            image = as_uint8(source.read(int(i), side), source.value_range)
        except SampleError:
            continue
        x = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
        height, width = x.shape[2:]
        short = min(height, width)
        top, left = (height - short) // 2, (width - short) // 2
        x = x[..., top : top + short, left : left + short]
        if short != side:
            x = interpolate(x, (side, side), mode="bilinear", antialias=True)
        kept.append(int(i))
        made.append(x[0].round().to(torch.uint8))
        if len(kept) == _ROWS:
            yield kept, torch.stack(made)
            kept, made = [], []
    if kept:
        yield kept, torch.stack(made)


def make_variants(
    source: WithVariants, generator: Generator, levels: Callable[[list[int], Tensor], Tensor], seed: int
) -> None:
    """Generate what is missing or damaged in the cache, and write the index anew.

    Args:
        source: images with a place in the cache.
        generator: makes the variants.
        levels: positions and images (n, C, side, side) in [0, 1] -> levels (n,) int64.
        seed: of the generator.
    """
    place = source.place
    assert place is not None, "variants that lie ready are not made"

    def make() -> dict[str, np.ndarray]:
        names = [""] * len(source)
        began = time.monotonic()
        for rows, pixels in squares(source, range(len(source)), generator.side):
            for row, file in zip(rows, _made(place.parent, rows, pixels, generator, levels, seed), strict=True):
                names[row] = file
            if time.monotonic() - began > _PATIENCE and sys.stderr.isatty():
                print(f"variants: {rows[-1] + 1:,} of {len(source):,} images", file=sys.stderr, flush=True)
                began = time.monotonic()
        return {"files": np.array(names)}

    with contextlib.suppress(OSError):
        (place / INDEX).unlink()  # it may name files that are gone
    source.hold(kept_arrays(place / INDEX, make, MEND)["files"].tolist())


def _made(
    root: Path,
    rows: list[int],
    pixels: Tensor,
    generator: Generator,
    levels: Callable[[list[int], Tensor], Tensor],
    seed: int,
) -> list[str]:
    """The files of a batch's variants, those that were missing made now."""
    x = pixels.float() / 255
    wanted = levels(rows, x)
    files = [variant_name(p, int(level), seed, generator.stamp) for p, level in zip(pixels, wanted, strict=True)]
    missing = [k for k, file in enumerate(files) if not _sound(root / file)]
    if missing:
        made = generator.generate(x[missing], wanted[missing], seed)
        for k, image in zip(missing, made, strict=True):
            save_image(root / files[k], image)
    return files


def variant_name(pixels: Tensor, level: int, seed: int, stamp: str) -> str:
    """Where a variant lies below the cache's folder: by the hash of the image, the level, the seed, the generator."""
    image = hashlib.blake2b(f"{tuple(pixels.shape)}".encode() + pixels.contiguous().numpy().tobytes(), digest_size=12)
    made = hashlib.blake2b(stamp.encode(), digest_size=4).hexdigest()
    suffix = "png" if len(pixels) in (1, 3) else "npz"
    return f"images/{image.hexdigest()[:2]}/{image.hexdigest()}-{level}-{seed}-{made}.{suffix}"


def save_image(path: Path, image: Tensor) -> None:
    """Write (C, H, W) in [0, 1] as eight bits, with checksums: PNG for grey and colour, .npz for other channels."""
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()

    def write(part: Path) -> None:
        if path.suffix == ".npz":
            with part.open("wb") as file:
                np.savez(file, pixels=pixels)
            return
        encoded = cv2.imencode(".png", pixels[..., ::-1] if pixels.shape[2] == 3 else pixels)[1]
        part.write_bytes(encoded.tobytes())

    _written(path, write)


def load_image(path: Path, name: str) -> np.ndarray:
    """(H, W, C) uint8 of a cached variant.

    Raises:
        SampleError: it is gone or damaged.
    """
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as kept:
                return kept["pixels"]
        return decode(path.read_bytes(), str(path))
    except (*DAMAGED, SampleError) as error:
        why = error.reason if isinstance(error, SampleError) else error
        raise SampleError(name, f"its variant {path} can't be read ({why}); delete it, and it is made again") from None


def _sound(path: Path) -> bool:
    """Whether a variant is there and can be read."""
    try:
        load_image(path, path.name)
    except SampleError:
        return False
    return True


def _written(path: Path, write: Callable[[Path], Any]) -> None:
    """Write beside the place, then move there in one step."""
    part = part_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise UserError(f"{path.parent}: can't write there ({error.strerror or error}); {MEND}") from None
