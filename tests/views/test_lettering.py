"""Drawn text: it stays within its mask, off real text, and follows every decision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from selftaught import views
from selftaught.data.builtin.photos import pixels
from selftaught.errors import UserError
from selftaught.views import STYLE_DECISIONS, LetterStyle, erasure_mask, letter, mask_boxes

PICTURE = pixels(6)[40:150, 40:168]
UNIT = (PICTURE / np.float32(255)).astype(np.float32)


def test_the_style_has_the_policys_decisions() -> None:
    assert list(STYLE_DECISIONS.values()) == [2, 12, 3, 3, 4, 2, 2, 2, 2, 2, 4, 3, 2, 8, 4, 3, 5, 5]
    assert [*LetterStyle.__dataclass_fields__] == [*STYLE_DECISIONS]
    numbers = [n - 1 for n in STYLE_DECISIONS.values()]
    assert LetterStyle.of(numbers).shadow_angle == 7
    for wrong in (numbers[1:], [2, *numbers[1:]]):
        with pytest.raises(UserError, match="option"):
            LetterStyle.of(wrong)


@pytest.mark.parametrize("picture", [PICTURE, UNIT, PICTURE[:, :, :1], np.repeat(UNIT, 2, 2)])
def test_outside_of_the_mask_nothing_changes(picture: np.ndarray) -> None:
    drawn = 0
    for seed in range(8):
        x, m = letter(picture, seed, count=2)
        assert x.dtype == picture.dtype
        assert np.array_equal(x[m == 1], picture[m == 1])
        assert set(np.unique(m)) <= {0, 1}
        drawn += (m == 0).any()
    assert drawn >= 4


def test_every_option_draws() -> None:
    for place, (name, options) in enumerate(STYLE_DECISIONS.items()):
        seen = []
        for option in range(options):
            style = [1, 0, 2, 1, 0, 0, 0, 0, 1, 1, 0, 0, 1, 0, 1, 0, 1, 2]
            style[place] = option
            seen.append(b"".join(letter(PICTURE, seed, style)[0].tobytes() for seed in (3, 4, 5)))
        assert len(set(seen)) == options, name


def test_real_text_is_left_free_and_copied() -> None:
    real = np.ones(PICTURE.shape[:2], np.uint8)
    lettered, mask = letter(PICTURE, 1, LetterStyle(colour=2, size=1), words=["Hull"])
    left, top, _, _ = mask_boxes(mask).min(0)
    _, _, right, bottom = mask_boxes(mask).max(0)
    real[top:bottom, left:right] = 0
    for seed in range(6):
        _, m = letter(lettered, seed, count=3, taken=real)
        assert not ((m == 0) & (real == 0)).sum() > 60  # an outline's end may touch it
    copies = [letter(lettered, seed, LetterStyle(mechanism=0), taken=real)[1] for seed in range(4)]
    assert any((m == 0).any() for m in copies)
    x, m = letter(PICTURE, 0, LetterStyle(mechanism=0))  # no letters to copy
    assert np.array_equal(x, PICTURE)
    assert m.all()


def test_the_mask_is_rectangles_of_what_differs() -> None:
    g = np.zeros((30, 40, 3), np.float32)
    x = g.copy()
    x[5:11, 7:17] = 0.5
    x[20:23, 30:33] = 0.5  # nine pixels: too few
    x[25, 2:30] = 15 / 255  # too faint
    m = erasure_mask(x, g)
    assert mask_boxes(m).tolist() == [[6, 4, 18, 12]]
    assert len(mask_boxes(erasure_mask(x, g, kind="pixel"))) == 2
    assert erasure_mask(g, g).all()
    with pytest.raises(UserError, match="one size"):
        erasure_mask(x, g[:5])


def test_fonts_and_words_of_ones_own(tmp_path: Path) -> None:
    assert len(views.font_files()) == 12
    with pytest.raises(UserError, match=r"no \.ttf"):
        views.font_files(str(tmp_path))
    (tmp_path / "one.ttf").write_bytes(Path(views.font_files()[0]).read_bytes())
    (tmp_path / "words.txt").write_text("Hullo\n", encoding="utf-8")
    op = views.DrawText(2, fonts=str(tmp_path), words=str(tmp_path / "words.txt"))
    pipeline = views.Pipeline((op,))
    facts: dict[str, np.ndarray] = {}
    params = pipeline.sample(np.random.default_rng(0), *PICTURE.shape[:2])
    made = views.render(PICTURE, pipeline, params, facts=facts)
    assert (made != PICTURE).any()
    assert facts["mask"].shape == PICTURE.shape[:2]
    (tmp_path / "bad.ttf").write_bytes(b"no font")
    with pytest.raises(UserError, match="count"):
        views.DrawText((1.5, 2))  # type: ignore[arg-type]
