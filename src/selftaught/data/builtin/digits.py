"""`digits`: 1,797 handwritten digits of scikit-learn."""

from __future__ import annotations

import gzip

import numpy as np

from selftaught.data.arrays import ImageArrays, labelled_arrays
from selftaught.data.builtin._entry import Entry
from selftaught.data.packages import data_file
from selftaught.data.source import digest

_FILE = "datasets/data/digits.csv.gz"


def open_digits() -> ImageArrays:
    """1,797 handwritten digits, (8, 8, 1) uint8 (0..16 in the file, times 255/16), ten classes, no split of their own.

    Raises:
        UserError: scikit-learn is missing.
    """
    path = data_file("sklearn", _FILE)
    with gzip.open(path, "rt") as file:
        table = np.loadtxt(file, delimiter=",")
    images = np.rint(table[:, :64] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    labels = table[:, 64].astype(np.int64)
    return labelled_arrays(images, labels, [str(k) for k in range(10)], "digits", digest(images, labels))


ENTRIES = (
    Entry(
        "digits",
        "image",
        "handwritten digits, 8x8 grey, 10 classes, 1,797",
        "scikit-learn",
        open_digits,
        (("sklearn", _FILE),),
    ),
)
