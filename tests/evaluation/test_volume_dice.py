"""Dice of volumes, and the place of slices."""

from __future__ import annotations

import numpy as np
import pytest

from selftaught.errors import UserError
from selftaught.evaluation import dice, slice_position, volume_dice


def test_dice_is_its_formula_over_the_whole_volume() -> None:
    rng = np.random.default_rng(0)
    p, t = rng.integers(0, 3, (2, 4, 5, 6))
    for k, found in enumerate(dice(p, t, 4)[:3]):
        assert found == pytest.approx(2 * ((p == k) & (t == k)).sum() / ((p == k).sum() + (t == k).sum()))
    assert np.isnan(dice(p, t, 4)[3])
    assert dice(t, t, 3).tolist() == [1, 1, 1]
    assert dice(np.zeros_like(t), np.ones_like(t), 2).tolist() == [0, 0]
    with pytest.raises(UserError, match=r"classes must lie in 0 \.\. 1"):
        dice(p, t, 2)
    with pytest.raises(UserError, match="one shape"):
        dice(p, t[:2], 3)


def test_structures_that_are_nowhere_do_not_count() -> None:
    t = [np.zeros((2, 3, 3), int), np.zeros((2, 3, 3), int)]
    t[0][0], t[1][1] = 1, 2
    p = [t[0].copy(), t[1].copy()]
    p[1][1, 0] = 0
    found = volume_dice(p, t, structures=["background", "a", "b"], names=["x", "y"])
    assert found["dice a"].mean == 1
    assert found["dice b"].mean == pytest.approx(12 / 15)
    assert found["dice"].mean == pytest.approx((1 + 12 / 15) / 2)
    assert [row["name"] for row in found.figures["worst_first"]] == ["y", "x"]
    with pytest.raises(UserError, match="no volume holds a structure"):
        volume_dice([np.zeros((1, 2, 2), int)], [np.zeros((1, 2, 2), int)], structures=["background", "a"])
    with pytest.raises(UserError, match="2 predictions for 1"):
        volume_dice(p, t[:1], structures=["background", "a", "b"])


def test_slices_find_their_place_only_in_other_volumes() -> None:
    part = np.tile(np.arange(4), 3)
    volume = np.repeat(np.arange(3), 4)
    told = np.eye(4)[part]
    assert slice_position(told, volume, part)["accuracy"].mean == 1
    own = np.eye(3)[volume] + 1e-3 * np.eye(4)[(part + 1) % 4][:, :3]
    assert slice_position(own, volume, part)["accuracy"].mean < 1
    with pytest.raises(UserError, match="no other volume"):
        slice_position(told[:4], volume[:4], part[:4])
    with pytest.raises(UserError, match=r"\(n, D\)"):
        slice_position(told, volume[:3], part)
