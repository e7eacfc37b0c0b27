"""`watch`: exercises of the shoulder, worn on a smart watch."""

from __future__ import annotations

import numpy as np

from selftaught.data.builtin._entry import Entry
from selftaught.data.packages import data_file
from selftaught.data.series import Windows
from selftaught.data.source import TEST, TRAIN
from selftaught.errors import UserError

WATCH_TEST_SUBJECTS = (8, 9, 10)
_FILE = "data/watch_dataset.npy"


def open_watch(*, window: int = 200, step: int = 100) -> Windows:
    """Seven shoulder exercises worn on a smart watch (Burns et al. 2018): 140 recordings of 10 subjects, 6 channels at
    50 Hz.

    Channels: acceleration x y z, rotation x y z. Labels: the exercise; groups: the subject (1 to 10); given split:
    subjects 1-7 for training, 8-10 for testing.

    Args:
        window: instants in a sample; 200 are four seconds.
        step: instants between the starts of two windows.

    Raises:
        UserError: the package seglearn is missing, or no recording is as long as the window.
    """
    path = data_file("seglearn", _FILE)
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


ENTRIES = (
    Entry(
        "watch",
        "series",
        "shoulder exercises on a smart watch, 6 channels at 50 Hz, 7 classes, 10 subjects",
        "seglearn (--no-deps)",
        open_watch,
        (("seglearn", _FILE),),
    ),
)
