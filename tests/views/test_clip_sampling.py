"""Several clips of one video: the law of the interval, starts, order, speeds, and that augmentation keeps to a clip."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad

from selftaught import views
from selftaught.errors import UserError
from selftaught.views import (
    ClipColorJitter,
    ClipPair,
    ClipSequence,
    DilatedClip,
    EvenClips,
    FramePart,
    HorizontalFlip,
    Pipeline,
    RandomResizedCrop,
    Recipe,
    SideCrop,
    SpeedClips,
    View,
    clip_starts,
    draw_interval,
    interval_bisection,
    interval_cdf,
    interval_density,
    interval_quantile,
)

RNG = np.random.default_rng


@pytest.mark.parametrize("power", [-0.5, 0.0, 0.5, 1.0, 2.0, 7.0])
def test_the_interval_has_the_sheets_law(power: float) -> None:
    longest = 13.0
    for t in (0.1, 3.0, 9.9):
        area = quad(lambda x: float(interval_density(x, longest, power)), 0, t, limit=200)[0]
        assert float(interval_cdf(t, longest, power)) == pytest.approx(area, abs=1e-6)
    if power != 0:
        t, p = 4.2, power
        literal = -(t ** (p + 1)) / (p * longest ** (p + 1)) + t * (p + 1) / (p * longest)
        assert float(interval_cdf(t, longest, power)) == pytest.approx(literal, rel=1e-12)
    u = np.linspace(0, 1, 51)
    np.testing.assert_allclose(interval_cdf(interval_quantile(u, longest, power), longest, power), u, atol=1e-9)
    drawn = np.sort(draw_interval(*RNG(0).random((2, 20000)), longest, power))
    gap = np.abs(interval_cdf(drawn, longest, power) - (np.arange(20000) + 0.5) / 20000).max()
    assert gap < 1.63 / np.sqrt(20000)  # Kolmogorov-Smirnov at 0.01
    assert drawn.mean() == pytest.approx(longest * (power + 1) / (2 * (power + 2)), rel=0.02)


def test_for_a_straight_line_the_quantile_is_the_sheets_and_the_official_draw_is_its_floor() -> None:
    u = RNG(1).random(300)
    exact = 220 * (1 - np.sqrt(1 - u))
    np.testing.assert_allclose(interval_quantile(u, 220), exact, rtol=1e-9)
    assert [interval_bisection(one, 220) for one in u] == np.floor(exact).astype(int).tolist()
    starts = np.array([clip_starts(row, 220 + 30, 16, 2) for row in RNG(2).random((20000, 4))])
    delta = np.abs(np.diff(starts, axis=1)[:, 0])
    assert 220 / 3 - 0.7 - 1.5 < delta.mean() < 220 / 3 * 1.02
    assert starts.min() >= 0
    assert starts.max() < 220
    counts = np.histogram(delta, bins=10, range=(0, 220))[0]
    assert (np.diff(counts) < 0).all()
    assert (starts[:, 0] > starts[:, 1]).mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("interval", "mean"), [("uniform", 0.5), ("increasing", 2 / 3), ("decreasing", 1 / 3), ("same", 0.0)]
)
def test_other_laws_of_the_interval(interval: str, mean: float) -> None:
    starts = np.array([clip_starts(row, 100, 1, interval=interval) for row in RNG(0).random((4000, 4))])
    assert np.abs(np.diff(starts)).mean() / 100 == pytest.approx(mean, abs=0.02)


def test_clips_apart_never_start_together_and_are_even() -> None:
    starts = np.array([clip_starts(row, 6, 3, interval="apart") for row in RNG(0).random((2400, 4))])
    pairs, counts = np.unique(starts, axis=0, return_counts=True)
    assert len(pairs) == 12
    assert (pairs[:, 0] != pairs[:, 1]).all()
    np.testing.assert_allclose(counts, 200, rtol=0.3)


def test_the_ends_of_the_law_and_short_videos() -> None:
    top = 1 - 1e-12
    assert clip_starts([top] * 4, 16, 16) == (0, 0)
    assert set(clip_starts([top, top, 0.3, 0.2], 20, 16)) == {0, 4}
    assert clip_starts([0.99, 0.5, 0, 0], 10, 16) == (9, 5)
    pair = ClipPair(4, stride=2)
    numbers = pair.indices(pair.draw_shape([0.9, 0.1, 0, 0], (3, 8, 8, 1), "clip")[0])
    assert numbers.tolist() == [2, 1, 0, 2, 0, 2, 1, 0]


def test_clips_in_order_with_their_gap() -> None:
    op = ClipSequence(4, stride=2, clips=3, gap=5)
    assert op.reach == 3 * 8 + 2 * 5 - 1
    numbers = op.indices(op.draw_shape([0.999], (40, 8, 8, 1), "clip")[0]).reshape(3, 4)
    assert numbers[-1, -1] == 39
    assert (np.diff(numbers, axis=1) == 2).all()
    assert (numbers[1:, 0] - numbers[:-1, -1] == 2 + 5).all()


def test_a_dilated_clip_and_what_completes_it() -> None:
    op = DilatedClip(4)
    for u, rate in ((0.0, 1), (0.3, 2), (0.6, 4), (0.99, 8)):
        columns, shape = op.draw_shape([u, 0.5], (64, 8, 8, 3), "clip")
        slow, fine = np.split(op.indices(columns), [4])
        assert shape == (12, 8, 8, 3)
        assert (np.diff(slow) == rate).all()
        assert fine.tolist() == (slow[0] + np.arange(8) * rate // 2).tolist()
        if rate > 1:
            assert fine[::2].tolist() == slow.tolist()


def test_the_rate_comes_with_the_batch_and_only_needed_frames_are_read() -> None:
    recipe = Recipe((View("clip", "clip", (DilatedClip(4), RandomResizedCrop(8))),))
    for seed in range(8):
        rng = RNG(seed)
        chosen = recipe.frames(rng, {"clip": 64})
        read = chosen.read["clip"]
        clip = np.broadcast_to(np.arange(64, dtype=np.uint8)[read][:, None, None, None], (len(read), 9, 9, 3))
        made = recipe.render({"clip": clip}, recipe.sample(rng, {"clip": clip.shape}, chosen))
        rate = (1, 2, 4, 8)[int(made["clip.rate"])]
        assert made["clip"].shape == (12, 8, 8, 3)
        assert (np.diff(made["clip"][:4, 0, 0, 0].astype(int)) == rate).all()


def test_two_clips_share_a_speed_and_the_third_has_the_other() -> None:
    op, speeds = SpeedClips(4, stride=2), []
    for seed in range(200):
        q, k, other = op.indices(op.draw_shape(RNG(seed).random(4), (60, 8, 8, 1), "clip")[0]).reshape(3, 4)
        speeds.append([np.diff(one)[0] for one in (q, k, other)])
    found = np.array(speeds)
    assert (found[:, 0] == found[:, 1]).all()
    assert (found[:, 0] + found[:, 2] == 6).all()
    assert (found[:, 0] == 2).mean() == pytest.approx(0.5, abs=0.1)


def test_augmentation_is_drawn_once_for_a_clip_and_anew_for_the_other_one() -> None:
    """A picture that stands still comes out as one that stands still; per frame it does not."""
    still = np.broadcast_to(RNG(0).integers(0, 256, (1, 24, 24, 3), dtype=np.uint8), (20, 24, 24, 3))
    ops = (RandomResizedCrop(12), HorizontalFlip(), ClipColorJitter(0.8, 0.8, 0.8, 0.2, p=1.0))
    recipe = Recipe(
        (
            View("_pair", "clip", (ClipPair(5),)),
            View("one", "_pair", (FramePart(5), *ops)),
            View("_two", "_pair", (FramePart(5, start=5),)),
            View("two", "_two", Pipeline(ops, per_frame=True)),
        )
    )
    made = recipe.render({"clip": still}, recipe.sample(RNG(3), {"clip": still.shape}))
    assert set(made) == {"one", "two"}
    assert (made["one"] == made["one"][:1]).all()
    assert not (made["two"] == made["two"][:1]).all()
    assert not np.array_equal(made["one"][0], made["two"][0])


def test_contrast_acts_about_the_mean_of_the_clip() -> None:
    clip = np.stack([np.full((4, 4, 3), value, np.uint8) for value in (50, 150)])
    double = dict.fromkeys(("contrast",), (2.0, 2.0))
    for op, expected in ((ClipColorJitter(**double, p=1), (0, 200)), (views.ColorJitter(**double, p=1), (50, 150))):
        pipeline = Pipeline((op,))
        params, _ = pipeline.sample_shape(RNG(0), clip.shape, "clip")
        found = views.render(clip, pipeline, params, kind="clip")
        assert tuple(found[:, 0, 0, 0].tolist()) == expected


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ClipPair(4, interval="middle"), "interval=middle"),
        (lambda: ClipPair(4, power=-1.0), "power must be above -1"),
        (lambda: ClipPair(4, jitter=True), "no jitter"),
        (lambda: ClipSequence(4, clips=0), "clips is a whole number, 1 or more"),
        (lambda: DilatedClip(4, rates=(1, 3)), "rates are 1 or even"),
        (lambda: SpeedClips(4, speeds=(2, 2)), "two different whole numbers"),
        (lambda: FramePart(4, start=-1), "start is a whole number"),
        (lambda: FramePart(4).draw_shape([], (3, 8, 8, 1), "clip"), "frame 3 of a clip of 3"),
        (lambda: ClipPair(4).draw_shape([0] * 4, (8, 8, 1), "image"), "not of a field of kind 'image'"),
        (lambda: interval_quantile(1.5, 10), "u lies between 0 and 1"),
        (lambda: interval_cdf(1, 0), "longest one must be above 0"),
    ],
)
def test_errors_say_what_is_wrong(make, says: str) -> None:
    with pytest.raises(UserError, match=says):
        make()


def test_views_to_judge_with_cover_the_video_and_its_longer_side() -> None:
    op = EvenClips(4, stride=2, clips=3)
    numbers = op.indices(op.draw_shape([], (27, 8, 8, 1), "clip")[0]).reshape(3, 4)
    assert numbers[:, 0].tolist() == [0, 10, 20]
    assert numbers[-1, -1] == 26
    middle = EvenClips(4, stride=2, clips=1)
    assert middle.indices(middle.draw_shape([], (27, 8, 8, 1), "clip")[0])[0] == 10
    lefts = [SideCrop(8, place=place).draw([], 8, 17)[0] for place in (0, 1, 2)]
    assert lefts == [(0, 0), (0, 4), (0, 9)]
    assert [SideCrop(8, place=place).draw([], 12, 10)[0] for place in (0, 1, 2)] == [(0, 1), (2, 1), (4, 1)]


def test_a_file_is_decoded_no_larger_than_the_views_of_its_picked_frames_need() -> None:
    crop, tall = views.RandomResizedCrop(16), views.Resize(40)
    pair = View("_pair", "clip", (ClipPair(4),))
    small = [View(name, "_pair", (FramePart(4, start=start), crop)) for name, start in (("one", 0), ("two", 4))]
    assert Recipe((pair, *small)).enough == {"clip": crop.enough}
    assert Recipe((pair, *small, View("three", "_pair", (tall,)))).enough == {"clip": max(40, crop.enough)}
    assert Recipe((pair, *small, View("all", "_pair", (FramePart(4),)))).enough == {"clip": None}
    assert Recipe((pair, *small, View("whole", "clip", (ClipPair(4),)))).enough == {"clip": None}
