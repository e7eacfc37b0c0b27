"""`textures`: GENERATED grey pictures of patches of cloth, and which cloth every pixel belongs to.

A cloth is a band of spatial frequencies of one direction in random noise: its pattern is new every time, its spectrum
the same. Brightness and contrast are drawn for each patch, so that grey values tell nothing. Every world has cloths of
its own: to see whether a backbone of one world learns to segment another (GLARE, arXiv 2509.17816).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from selftaught.data.builtin._entry import Entry, at_least
from selftaught.data.fields import LABEL, Field
from selftaught.data.source import TEST, TRAIN, Source, digest

__all__ = ["ENTRIES", "Textures", "open_textures"]


class Textures(Source):
    """Pictures (side, side, 1) uint8 with masks (side, side) of cloths 0 .. K - 1; each a function of its number."""

    def __init__(self, train: int, test: int, side: int, kinds: int, patches: int, world: int, draw: int) -> None:
        """Args: see `open_textures`."""
        self.name, self.channels, self.depth, self.generated = "textures", 1, "uint8", True
        self.side, self.kinds, self.patches, self.world, self.draw = side, kinds, patches, world, draw
        self.names = [f"{part}/{i:05d}.png" for part, n in (("train", train), ("test", test)) for i in range(n)]
        self.given = np.array([TRAIN] * train + [TEST] * test, dtype=np.int8)
        rng = np.random.default_rng([world, 16])
        turns = np.pi * (np.arange(kinds) + rng.uniform(-0.25, 0.25, kinds) + rng.random()) / kinds
        periods = rng.permutation(np.geomspace(2.5, 6.0, kinds))
        across, down = (np.fft.fftfreq(side)[None, :], np.fft.fftfreq(side)[:, None])
        self._bands = [
            sum(
                np.exp(-((across - s * np.cos(t) / p) ** 2 + (down - s * np.sin(t) / p) ** 2) / (2 * (0.2 / p) ** 2))
                for s in (1, -1)
            )
            for t, p in zip(turns, periods, strict=True)
        ]

    @property
    def fields(self) -> dict[str, Field]:
        """The picture and its mask."""
        return {"image": Field("image", 1), "mask": Field("mask")}

    def read(self, i: int, min_side: int | None = None) -> np.ndarray:
        """One picture; see `Source.read`."""
        return self._made(i)[0]

    def _field(self, name: str, i: int, min_side: int | None, frames: np.ndarray | None) -> Any:
        if name == LABEL:
            return super()._field(name, i, None, None)
        return self._made(i)[int(name == "mask")]

    def _made(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        rng, side = np.random.default_rng([self.draw, self.world, i, 1616]), self.side
        mask = np.full((side, side), rng.integers(self.kinds), dtype=np.int32)
        picture = self._cloth(int(mask[0, 0]), rng)
        u = (np.arange(side) + 0.5) / side
        for _ in range(self.patches):
            kind, (cx, cy), (a, b) = int(rng.integers(self.kinds)), rng.uniform(0.1, 0.9, 2), rng.uniform(0.2, 0.38, 2)
            turn = rng.uniform(0, np.pi)
            x, y = u[None, :] - cx, u[:, None] - cy
            along, beside = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
            inside = np.hypot(along / a, beside / b) < 1
            picture, mask = np.where(inside, self._cloth(kind, rng), picture), np.where(inside, kind, mask)
        return np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8)[..., None], mask.astype(np.int32)

    def _cloth(self, kind: int, rng: np.random.Generator) -> np.ndarray:
        """A whole picture of one cloth, values about [0, 1]."""
        noise = np.fft.fft2(rng.normal(size=(self.side, self.side)))
        pattern = np.fft.ifft2(noise * self._bands[kind]).real
        pattern /= pattern.std() + 1e-12
        return rng.uniform(0.35, 0.65) + rng.uniform(0.08, 0.16) * pattern

    def fingerprint(self) -> str:
        """Of the options: they say every pixel."""
        return digest("textures 2", self.side, self.kinds, self.patches, self.world, self.draw, self.given)


def open_textures(
    *,
    train: int = 600,
    test: int = 200,
    side: int = 32,
    kinds: int = 4,
    patches: int = 3,
    world: int = 0,
    draw: int = 0,
) -> Textures:
    """Generated pictures of cloths with masks.

    Args:
        train: pictures for training.
        test: pictures for testing.
        side: of the pictures, in pixels.
        kinds: cloths K of a world, the classes.
        patches: that lie on the ground of a picture; 0: every picture is one cloth.
        world: another number has other cloths.
        draw: another number gives other pictures of the same cloths.

    Raises:
        UserError: a number out of its range.
    """
    low = {"train": (train, 1), "test": (test, 0), "side": (side, 16), "kinds": (kinds, 2), "world": (world, 0)}
    at_least("textures", {**low, "draw": (draw, 0), "patches": (patches, 0)})
    return Textures(train, test, side, kinds, patches, world, draw)


ENTRIES = (
    Entry(
        "textures",
        "image",
        "patches of four cloths with masks, GENERATED by the program, 32x32 grey, 600 + 200 (?world=1: other cloths)",
        "selftaught itself",
        open_textures,
    ),
)
