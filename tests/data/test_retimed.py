"""Clips shown otherwise in time."""

from __future__ import annotations

import numpy as np
import pytest

from selftaught.data import open_source
from selftaught.data.combining import Retimed
from selftaught.errors import UserError


def test_frames_come_from_elsewhere_in_time() -> None:
    source = open_source("motion?train=3&test=1&frames=16&side=16")
    whole = source.read(1)
    wanted = np.arange(3, 11)
    np.testing.assert_array_equal(Retimed(source, "forward").read(1, frames=wanted), whole[3:11])
    np.testing.assert_array_equal(Retimed(source, "backward").read(1, frames=wanted), whole[3:11][::-1])
    fast = Retimed(source, "x2")
    assert fast.frames(1) == 8
    np.testing.assert_array_equal(fast.read(1), whole[::2])
    np.testing.assert_array_equal(fast.read(1, frames=np.array([5, 1, 5])), whole[[10, 2, 10]])
    mixed = Retimed(source, "shuffled")
    taken = mixed.taken(wanted, 1)
    assert sorted(taken.tolist()) == wanted.tolist()
    assert taken.tolist() != wanted.tolist()
    pairs = taken.reshape(4, 2)
    assert (pairs[:, 1] - pairs[:, 0] == 1).all(), "segments stay whole"
    np.testing.assert_array_equal(mixed.read(1, frames=wanted), whole[taken])
    np.testing.assert_array_equal(mixed.taken(wanted, 1), taken)
    two = Retimed(source, "shuffled", length=8).taken(np.arange(16), 0)
    assert sorted(two[:8].tolist()) == list(range(8)), "each clip of a view is shuffled by itself"
    assert len({Retimed(source, how).fingerprint() for how in ("forward", "backward", "shuffled", "x2", "x4")}) == 5


def test_other_samples_and_ways_are_refused() -> None:
    with pytest.raises(UserError, match="clips have a time"):
        Retimed(open_source("digits"), "backward")
    with pytest.raises(UserError, match="how='sideways'"):
        Retimed(open_source("motion?train=1&test=0"), "sideways")
