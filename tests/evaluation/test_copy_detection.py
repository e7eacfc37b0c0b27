"""R-MAC against loops over pixels, whitening against its definition, mean average precision by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from selftaught.errors import UserError
from selftaught.evaluation import copy_detection, fit_whitening, regional_maxima, rmac
from selftaught.evaluation.copy_detection import rmac_regions


def test_a_square_map_has_one_four_and_nine_regions() -> None:
    regions = rmac_regions(12, 12, 3)
    assert regions[0] == (0, 0, 12)
    assert regions[1:5] == [(0, 0, 8), (0, 4, 8), (4, 0, 8), (4, 4, 8)]
    assert regions[5:] == [(y, x, 6) for y in (0, 3, 6) for x in (0, 3, 6)]


@pytest.mark.parametrize(("height", "width", "first"), [(10, 16, 2), (10, 20, 3), (8, 9, 2), (16, 10, 2), (7, 30, 7)])
def test_level_one_of_an_oblong_map_overlaps_by_about_two_fifths(height: int, width: int, first: int) -> None:
    short, long = sorted((height, width))
    choices = {m: abs((1 - (long - short) / (m - 1) / short) - 0.4) for m in range(2, 8)}
    assert min(choices, key=choices.get) == first
    regions = rmac_regions(height, width, 3)
    for level, side in ((1, short), (2, 2 * short // 3), (3, short // 2)):
        assert sum(s == side for _, _, s in regions) == level * (level + first - 1)
    tops, lefts, sides = map(np.array, zip(*regions, strict=True))
    assert (tops + sides).max() == height
    assert (lefts + sides).max() == width


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (2, 2)])
def test_tiny_maps_stay_inside(shape: tuple[int, int]) -> None:
    for top, left, side in rmac_regions(*shape, 3):
        assert side >= 1
        assert top >= 0
        assert left >= 0
        assert top + side <= shape[0]
        assert left + side <= shape[1]
    maps = torch.rand(2, 5, *shape, dtype=torch.float64)
    if shape == (1, 1):
        torch.testing.assert_close(rmac(maps), torch.nn.functional.normalize(maps[:, :, 0, 0], dim=1))


def by_loops(maps: np.ndarray, mean: np.ndarray, directions: np.ndarray, levels: int) -> np.ndarray:
    """R-MAC word by word: the regions of a square map, one number at a time."""
    out = []
    for image in maps:
        total = np.zeros(directions.shape[1])
        side_of_map = image.shape[1]
        for level in range(1, levels + 1):
            side = 2 * side_of_map // (level + 1)
            for row in range(level):
                for column in range(level):
                    step = (side_of_map - side) / (level - 1) if level > 1 else 0
                    y, x = int(row * step), int(column * step)
                    vector = np.zeros(len(image))
                    for c in range(len(image)):
                        best = -np.inf
                        for i in range(y, y + side):
                            for j in range(x, x + side):
                                best = max(best, image[c, i, j])
                        vector[c] = best
                    vector = vector / np.sqrt((vector**2).sum())
                    vector = (vector - mean) @ directions
                    total += vector / np.sqrt((vector**2).sum())
        out.append(total / np.sqrt((total**2).sum()))
    return np.array(out)


def test_rmac_is_what_the_paper_says_number_by_number(rng) -> None:
    maps = rng.standard_normal((3, 4, 6, 6))
    whitening = fit_whitening(regional_maxima(torch.from_numpy(rng.standard_normal((20, 4, 6, 6)))).flatten(0, 1))
    found = rmac(torch.from_numpy(maps), whitening)
    expected = by_loops(maps, whitening.mean.double().numpy(), whitening.directions.double().numpy(), 3)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-10)
    plain = by_loops(maps, np.zeros(4), np.eye(4), 3)
    np.testing.assert_allclose(rmac(torch.from_numpy(maps)).numpy(), plain, atol=1e-10)
    assert regional_maxima(torch.from_numpy(maps)).shape == (3, 14, 4)


def test_scale_does_not_matter_and_half_precision_gives_float32(rng) -> None:
    maps = torch.from_numpy(rng.random((2, 3, 8, 5)))
    torch.testing.assert_close(rmac(7.5 * maps), rmac(maps))
    assert rmac(maps.bfloat16()).dtype == torch.float32


def test_whitened_data_have_unit_covariance(rng) -> None:
    x = rng.standard_normal((500, 6)) @ rng.standard_normal((6, 6)) + 3
    white = fit_whitening(x)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(white.T @ white / 500, np.eye(6), atol=1e-5)
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-5)
    first = fit_whitening(x, 2)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(first, white[:, :2], atol=1e-6)


def test_directions_without_variance_are_dropped_not_blown_up(rng) -> None:
    x = np.concatenate([rng.standard_normal((50, 3)), np.ones((50, 4))], 1)
    assert fit_whitening(x).directions.shape == (7, 3)
    with pytest.raises(UserError, match="collapsed"):
        fit_whitening(np.ones((5, 3)))
    with pytest.raises(UserError, match="at least two"):
        fit_whitening(np.ones((1, 3)))


def unit(angle: float) -> list[float]:
    return [np.cos(np.radians(angle)), np.sin(np.radians(angle))]


def test_average_precision_by_hand() -> None:
    """Query at 0 degrees; the originals at 10 and 30, others at 5 and 20: ranks 2 and 4."""
    database = np.array([unit(10), unit(30), unit(5)])
    result = copy_detection(database, [0, 0, 1], [unit(0)], [0], distractors=np.array([unit(20)]))
    assert result["map"].mean == pytest.approx((1 / 2 + 2 / 4) / 2)
    first, second = (0 / 1 + 1 / 2) / 2, (1 / 3 + 2 / 4) / 2
    assert result["map_trapezoid"].mean == pytest.approx((first + second) / 2)
    assert result["precision@1"].mean == 0
    without = copy_detection(database, [0, 0, 1], [unit(0)], [0])
    assert without["map"].mean == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_a_collapsed_encoder_finds_copies_by_chance() -> None:
    same = np.ones((40, 8), np.float32)
    result = copy_detection(same, np.arange(40) // 4, same[:10], np.arange(10))
    assert result["map"].mean == pytest.approx(4 / 40)
    assert result["precision@1"].mean == pytest.approx(4 / 40)
    assert result["map_trapezoid"].mean < 0.25
    turned = copy_detection(same, (np.arange(40) // 4)[::-1], same[:10], np.arange(10))
    assert turned["map"].mean == pytest.approx(result["map"].mean)


def test_exact_copies_are_found_and_distractors_never_count(rng) -> None:
    database, others = rng.standard_normal((30, 8)), rng.standard_normal((100, 8))
    result = copy_detection(database, np.arange(30), 3 * database, np.arange(30), distractors=others)
    assert [result[name].mean for name in ("map", "map_trapezoid", "precision@1")] == [1, 1, 1]
    unrelated = copy_detection(database, np.arange(30), rng.standard_normal((30, 8)), np.arange(30), distractors=others)
    assert unrelated["map"].mean < 0.2


def test_kinds_of_change_have_numbers_of_their_own_and_strays_are_left_out(rng) -> None:
    database = np.eye(4)
    queries = np.concatenate([np.eye(4), np.roll(np.eye(4), 1, axis=0)])
    result = copy_detection(database, range(4), queries, [0, 1, 2, 3, 0, 1, 2, 9], blocks=["jpeg"] * 4 + ["strong"] * 4)
    assert result["map: jpeg"].mean == 1
    assert result["map: strong"].mean < 0.5
    assert result["map"].mean == pytest.approx((4 + 3 * result["map: strong"].mean) / 7)
    assert "1 query without an original" in result.note


def test_wrong_input_is_one_line() -> None:
    x = np.eye(3)
    with pytest.raises(UserError, match="no query has an original"):
        copy_detection(x, [0, 1, 2], x, [5, 6, 7])
    with pytest.raises(UserError, match="negative"):
        copy_detection(x, [-1, 1, 2], x, [0, 1, 2])
    with pytest.raises(UserError, match="2 names for 3"):
        copy_detection(x, [0, 1, 2], x, [0, 1, 2], blocks=["a", "b"])
    with pytest.raises(UserError, match=r"\(N, C, H, W\)"):
        rmac(torch.ones(2, 3))
    with pytest.raises(UserError, match="NaN"):
        rmac(torch.full((1, 2, 3, 3), torch.nan))
    with pytest.raises(UserError, match="at least 1"):
        rmac_regions(0, 4)
