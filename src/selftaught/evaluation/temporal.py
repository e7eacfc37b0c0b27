"""What features of clips know of time: whether frames are in order, how fast they go, which way."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from selftaught.errors import UserError
from selftaught.evaluation._protocol import protocol
from selftaught.evaluation.linear import linear
from selftaught.evaluation.result import Result

__all__ = ["QUESTIONS", "temporal"]

QUESTIONS: Mapping[str, tuple[str, ...]] = {
    "order": ("forward", "shuffled"),
    "speed": ("forward", "x2", "x4"),
    "direction": ("forward", "backward"),
}
"""Question -> the ways of showing a clip that are to be told apart."""


@protocol("temporal", "clips forward or not, fast or slow, in order or not: linear probes", inputs="times")
def temporal(train: Mapping[str, np.ndarray], test: Mapping[str, np.ndarray]) -> Result:
    """A linear probe for each of :data:`QUESTIONS`: were the frames in order, how fast did they go, which way?

    Args:
        train: way of showing -> features (n, D) of the same n training clips; speeds that are missing aren't asked
            for.
        test: the same of the test clips.

    Returns:
        ``Result`` "temporal": accuracies ``order``, ``speed``, ``direction``, each with its interval over clips shown;
        the note names chance.

    Raises:
        UserError: no question can be asked, ways of unlike numbers of clips.
    """
    numbers, notes = {}, []
    for side in (train, test):
        if len({len(x) for x in side.values()}) > 1:
            raise UserError("temporal: every way of showing needs the same clips")
    for question, ways in QUESTIONS.items():
        asked = [way for way in ways if way in train and way in test]
        if len(asked) < 2:
            continue
        (x, y), (tx, ty) = (_stacked(side, asked) for side in (train, test))
        clips = np.tile(np.arange(len(train[asked[0]])), len(asked))
        numbers[question] = linear(x, y, tx, ty, groups=clips)["accuracy"]
        notes.append(f"{question} {1 / len(asked):.2f}")
    if not numbers:
        raise UserError("temporal: give features of clips shown forward and in one other way at least")
    return Result("temporal", numbers, {}, f"chance: {', '.join(notes)}")


def _stacked(side: Mapping[str, np.ndarray], ways: list[str]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([side[way] for way in ways]), np.repeat(np.arange(len(ways)), len(side[ways[0]]))
