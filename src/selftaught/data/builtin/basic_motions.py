"""`basic-motions`: four activities on a smart watch, of the UEA archive."""

from __future__ import annotations

from selftaught.data.builtin._entry import Entry
from selftaught.data.packages import data_file
from selftaught.data.series import RaggedSeries
from selftaught.data.timeseries import open_ts

_FILE = "datasets/data/BasicMotions/BasicMotions_TRAIN.ts"


def open_basic_motions() -> RaggedSeries:
    """BasicMotions of the UEA archive: 40 + 40 series of 6 channels x 100 at 10 Hz, four activities, with its given
    split.

    Raises:
        UserError: the package aeon is missing.
    """
    path = data_file("aeon", _FILE)
    return open_ts(path, "basic-motions", rate=10.0)


ENTRIES = (
    Entry(
        "basic-motions",
        "series",
        "four activities on a smart watch, 6 channels x 100 at 10 Hz, 40 + 40",
        "aeon (--no-deps)",
        open_basic_motions,
        (("aeon", _FILE),),
    ),
)
