"""`photos`: tiles of the photographs in scikit-image's and scikit-learn's wheels. Nothing is downloaded.

Every photograph is parted once by a straight line into a training region and a test region, and each tile lies wholly
in one of them: no pixel of a test tile is in any training tile. Which photograph a tile is from is its label, for
evaluation only, as texture recognition has it done.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from selftaught.data.builtin._entry import Entry
from selftaught.data.decoding import decode, read_bytes
from selftaught.data.image_source import ImageSource
from selftaught.data.packages import data_file
from selftaught.data.pixels import conform
from selftaught.data.source import TEST, TRAIN, digest
from selftaught.errors import UserError

Side = Literal["right", "bottom"]

_TEST_SHARE = 0.3


class Photo(NamedTuple):
    """One photograph: the file, on which side its test region lies, what of it is used, and whether it is a test image
    as a whole.
    """

    name: str
    package: str
    file: str
    side: Side
    box: tuple[int, int, int, int] | None = None
    shrink: int = 1
    held_out: bool = False


_SK = "skimage"
PHOTOS: tuple[Photo, ...] = (
    Photo("astronaut", _SK, "data/astronaut.png", "bottom"),
    Photo("brick", _SK, "data/brick.png", "right"),
    Photo("camera", _SK, "data/camera.png", "right"),
    Photo("cell", _SK, "data/cell.png", "bottom"),
    Photo("chelsea", _SK, "data/chelsea.png", "right", held_out=True),
    Photo("china", "sklearn", "datasets/images/china.jpg", "right", held_out=True),
    Photo("coffee", _SK, "data/coffee.png", "right"),
    Photo("coins", _SK, "data/coins.png", "right"),
    Photo("flower", "sklearn", "datasets/images/flower.jpg", "bottom"),
    Photo("grass", _SK, "data/grass.png", "right"),
    Photo("gravel", _SK, "data/gravel.png", "right", held_out=True),
    Photo("hubble", _SK, "data/hubble_deep_field.jpg", "right"),
    Photo("ihc", _SK, "data/ihc.png", "right"),
    Photo("moon", _SK, "data/moon.png", "bottom"),
    Photo("motorcycle", _SK, "data/motorcycle_left.png", "right", held_out=True),
    Photo("retina", _SK, "data/retina.jpg", "right", box=(218, 218, 1194, 1194), shrink=2),
    Photo("rocket", _SK, "data/rocket.jpg", "right"),
)
"""Photographs with content all over. Left out: drawings, masks, charts, scanned text, the second picture of a stereo
pair, pictures below 200 pixels, and one that is blurred all over. `side` was chosen by eye so that both regions show
the same things. Of `retina` the square inside the round field is used, at half size."""


class PhotoTiles(ImageSource):
    """Square tiles of the photographs, cut out of the decoded pictures, which each process keeps."""

    def __init__(self, tile: int, stride: int | None, train: int, test: int, enlarge: int = 1) -> None:
        """Args: see `open_photos`."""
        self.name, self.channels, self.tile, self.enlarge = "photos", 3, tile, enlarge
        self.classes = [photo.name for photo in PHOTOS]
        boxes, codes, labels = [], [], []
        regions = [split_regions(pixels(k).shape[:2], photo.side, tile, photo.name) for k, photo in enumerate(PHOTOS)]
        for code, most in ((TRAIN, train), (TEST, test)):
            grids = [tile_grid(pair[code == TEST], tile, stride, most) for pair in regions]
            each = min(most, *[len(grid) for grid in grids])
            for k, grid in enumerate(grids):
                kept = grid[np.linspace(0, len(grid) - 1, each).round().astype(np.int64)] if each > 1 else grid[:each]
                boxes.append(kept)
                codes.append(np.full(each, code, dtype=np.int8))
                labels.append(np.full(each, k, dtype=np.int64))
        self.boxes = np.concatenate(boxes)
        self.given, self.labels = np.concatenate(codes), np.concatenate(labels)
        self.names = [
            f"{'test' if c == TEST else 'train'}/{PHOTOS[k].name}/{y:04d}-{x:04d}"
            for c, k, (y, x) in zip(self.given.tolist(), self.labels.tolist(), self.boxes.tolist(), strict=True)
        ]

    def _load(self, i: int, min_side: int | None) -> np.ndarray:
        assert self.labels is not None
        y, x = self.boxes[i].tolist()
        found = pixels(int(self.labels[i]))[y : y + self.tile, x : x + self.tile]
        if self.enlarge == 1:
            return found.copy()
        import cv2

        return cv2.resize(found, None, fx=self.enlarge, fy=self.enlarge, interpolation=cv2.INTER_CUBIC)

    def _is_uint8(self) -> bool:
        return True

    def fingerprint(self) -> str:
        """Of the photographs and the places of the tiles."""
        content = [digest(pixels(k)) for k in range(len(PHOTOS))]
        return digest("photos", *content, self.boxes, self.labels, self.tile, self.enlarge)


class WholePhotos(ImageSource):
    """The photographs themselves: clean pictures to restore."""

    def __init__(self) -> None:
        self.name, self.channels = "photos:whole", 3
        self.names = [photo.name for photo in PHOTOS]
        self.given = np.array([TEST if photo.held_out else TRAIN for photo in PHOTOS], dtype=np.int8)

    def _load(self, i: int, min_side: int | None) -> np.ndarray:
        return pixels(i).copy()

    def _is_uint8(self) -> bool:
        return True

    def fingerprint(self) -> str:
        """Of the photographs."""
        return digest("photos:whole", *[digest(pixels(k)) for k in range(len(PHOTOS))])


def open_photos(
    *, tile: int = 96, stride: int | None = None, train: int = 200, test: int = 50, enlarge: int = 1
) -> PhotoTiles:
    """Tiles of the photographs, as many of each photograph.

    Args:
        tile: side of a tile in pixels.
        stride: pixels between neighbouring tiles; None: as far apart as the wanted number allows (they overlap).
        train: training tiles of each photograph at most; fewer where `stride` leaves no room for that many in the
            smallest photograph.
        test: test tiles of each photograph at most.
        enlarge: enlarge each tile so many times (bicubic): pictures smoother than the grid of their pixels, as sensors
            give them that oversample what the lens can show.

    Returns:
        A source with a given split: 17 photographs, by default 3,400 training and 850 test tiles (96, 96, 3) uint8.

    Raises:
        UserError: scikit-image or scikit-learn is missing, or the tile doesn't fit both regions of every photograph.
    """
    for option, value in (
        ("tile", tile),
        ("stride", 1 if stride is None else stride),
        ("train", train),
        ("test", test),
        ("enlarge", enlarge),
    ):
        if value < 1:
            raise UserError(f"photos: {option}={value} must be at least 1")
    return PhotoTiles(tile, stride, train, test, enlarge)


def open_whole_photos() -> WholePhotos:
    """The photographs as a whole, RGB, 300x451 to 872x1000: 13 for training, 4 for testing, without labels."""
    for photo in PHOTOS:
        data_file(photo.package, photo.file)
    return WholePhotos()


@functools.cache
def pixels(k: int) -> np.ndarray:
    """Photograph number k as (H, W, 3) uint8, read once per process; not to be written to."""
    photo = PHOTOS[k]
    path = Path(data_file(photo.package, photo.file))
    image = conform(decode(read_bytes(path, path.name), path.name), 3, path.name)
    if photo.box is not None:
        top, left, bottom, right = photo.box
        image = image[top:bottom, left:right]
    if photo.shrink > 1:
        import cv2

        size = (image.shape[1] // photo.shrink, image.shape[0] // photo.shrink)
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    image = np.ascontiguousarray(image)
    image.flags.writeable = False
    return image


def split_regions(
    shape: tuple[int, int], side: Side, tile: int, name: str
) -> tuple[tuple[int, int, int, int], tuple[int, int, int, int]]:
    """The training and the test region of a picture as (top, left, bottom, right); they share an edge and no pixel.

    The test region is the 30 % at the right or the bottom, or 1.25 tiles where that is more.

    Raises:
        UserError: a tile doesn't fit both.
    """
    height, width = shape
    length = width if side == "right" else height
    across = height if side == "right" else width
    cut = length - max(round(_TEST_SHARE * length), tile + tile // 4)
    if cut < tile or across < tile:
        raise UserError(
            f"photos: tile={tile} fits no training and test region side by side in {name} ({height}x{width}); "
            "use 160 or less"
        )
    if side == "right":
        return (0, 0, height, cut), (0, cut, height, width)
    return (0, 0, cut, width), (cut, 0, height, width)


def tile_grid(region: tuple[int, int, int, int], tile: int, stride: int | None, wanted: int) -> np.ndarray:
    """(n, 2) top left corners of tiles on a grid over a region.

    With a `stride` every tile of that grid; without, the coarsest grid of even steps that has `wanted` tiles (or all
    there are).
    """
    top, left, bottom, right = region
    room = np.array([bottom - top - tile, right - left - tile])
    if stride is not None:
        rows, columns = np.arange(0, room[0] + 1, stride), np.arange(0, room[1] + 1, stride)
    else:
        step = float(max(room.max(), 1))
        while np.prod(np.minimum(room // step + 1, room + 1)) < wanted and step > 1:
            step = max(step * 0.97, 1.0)
        counts = np.minimum(room // step + 1, room + 1).astype(np.int64)
        rows, columns = (np.linspace(0, room[a], counts[a]).round().astype(np.int64) for a in (0, 1))
    grid = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    return grid + np.array([top, left])


_FILES = tuple((photo.package, photo.file) for photo in PHOTOS)
ENTRIES = (
    Entry(
        "photos",
        "image",
        f"tiles of {len(PHOTOS)} photographs, 96x96 RGB, 3,400 + 850",
        "scikit-image, scikit-learn",
        open_photos,
        _FILES,
    ),
    Entry(
        "photos:whole",
        "image",
        f"the {len(PHOTOS)} photographs as a whole, to restore",
        "scikit-image, scikit-learn",
        open_whole_photos,
        _FILES,
    ),
)
