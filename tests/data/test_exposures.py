"""Clips blurred by averaging, and the windows that move over photographs."""

from __future__ import annotations

import numpy as np
import pytest

from selftaught.data import open_source
from selftaught.data.exposures import Exposures
from selftaught.errors import UserError

PANS = "pans?train=3&test=2&frames=20&side=32&direction={}"


@pytest.mark.parametrize(("exposure", "step", "gamma"), [(3, 3, 1.0), (5, 2, 2.2), (1, 1, 1.0)])
def test_a_blurred_frame_is_the_mean_of_its_exposure(exposure: int, step: int, gamma: float) -> None:
    source = open_source(PANS.format("any"), modality="clip", split="train")
    blurred = Exposures(source, exposure=exposure, step=step, gamma=gamma)
    frames = source.read(1)
    sample = blurred.sample(1)
    count = (20 - exposure) // step + 1
    assert blurred.frames(1) == count == len(sample["blurred"])
    for t in range(count):
        part = frames[t * step : t * step + exposure] / 255
        wanted = 255 * (part**gamma).mean(0) ** (1 / gamma)
        assert np.abs(sample["blurred"][t] - wanted).max() <= 0.51
        assert np.array_equal(sample["sharp"][t], frames[t * step + exposure // 2])
    some = blurred.sample(1, ["sharp", "blurred"], None, np.array([2, 0]))
    assert np.array_equal(some["blurred"], sample["blurred"][[2, 0]])
    assert np.array_equal(some["sharp"], sample["sharp"][[2, 0]])
    assert blurred.main == "blurred"
    assert blurred.fingerprint() != Exposures(source, exposure=exposure, step=step + 1).fingerprint()


def test_clips_shorter_than_an_exposure_are_left_out() -> None:
    source = open_source(PANS.format("any"), modality="clip", split="train")
    with pytest.raises(UserError, match="no clip has the 21 frames"):
        Exposures(source, exposure=21, step=1)
    with pytest.raises(UserError, match="only clips"):
        Exposures(open_source("digits?n=10"), exposure=3, step=1)


def test_windows_move_in_their_direction_over_photographs_of_their_own() -> None:
    for direction, still in (("horizontal", 0), ("vertical", 1)):
        source = open_source(PANS.format(direction), modality="clip", split="all")
        seen: dict[int, set[int]] = {}
        for i in range(len(source)):
            number, corners = source.path(i)
            assert np.ptp(corners[:, still]) == 0
            assert 6 <= np.ptp(corners[:, 1 - still]) <= 20
            seen.setdefault(int(source.given[i]), set()).add(number)
            clip = source.read(i, frames=np.array([0, 7]))
            moved = corners[7] - corners[0]
            assert clip.shape == (2, 32, 32, 3)
            y, x = np.maximum(moved, 0)
            a = clip[0][y : 32 + min(0, moved[0]), x : 32 + min(0, moved[1])]
            b = clip[1][max(0, -moved[0]) : 32 - y, max(0, -moved[1]) : 32 - x]
            assert np.array_equal(a, b)
        assert not seen[0] & seen[2]
    with pytest.raises(UserError, match="direction"):
        open_source("pans?direction=up", modality="clip")
    with pytest.raises(UserError, match="leave the photographs"):
        open_source("pans?frames=2000&train=1&test=0", modality="clip").read(0)


def test_a_held_exposure_is_sharp_between_blurred_ones_that_are_as_far_away_as_ever() -> None:
    options = "pans?train=3&test=0&frames=98&side=32&rest=0&direction=vertical"
    free, held = (open_source(f"{options}&hold={hold}", modality="clip", split="all") for hold in (0, 7))
    assert held.fingerprint() != free.fingerprint()
    for i in range(len(held)):
        _, corners = held.path(i)
        extents = np.ptp(corners[:, 0].reshape(14, 7), axis=1)
        sharp = np.flatnonzero(extents == 0)
        assert len(sharp) == 2
        assert sharp[1] - sharp[0] == 7
        assert (np.delete(extents, sharp) == 6).all()
        assert (np.abs(np.diff(corners[3::7, 0])) == 7).all()  # the middles, which the sharp frames are
        sample = Exposures(held, exposure=7, step=7).sample(i)
        assert [t for t in range(14) if np.array_equal(sample["blurred"][t], sample["sharp"][t])] == sharp.tolist()
    with pytest.raises(UserError, match="hold=50"):
        open_source("pans?hold=50", modality="clip")
