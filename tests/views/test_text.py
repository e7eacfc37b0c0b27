"""Texts: tokenisers, and what takes words away, exchanges or replaces them."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest

from selftaught import views
from selftaught.errors import UserError
from selftaught.views import Pipeline, Recipe, View
from selftaught.views.text.tokens import HashedWords
from selftaught.views.text.words import (
    STOP_WORDS,
    augment_text,
    delete_words,
    drop_stop_words,
    replace_synonyms,
    swap_words,
    synonym_table,
)

TEXT = "A photo of the big red dog on a street"


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_hashed_words_are_the_same_everywhere_and_the_end_is_the_highest() -> None:
    words = views.tokeniser("words-8192")
    rows = words(["a red square", "A  RED, square!", ""], 8)
    assert rows.shape == (3, 8)
    assert rows.dtype == np.int64
    assert rows[0, 1] == rows[1, 1] and rows[0, 2] == rows[1, 2]  # noqa: PT018
    assert (rows.argmax(1) == [4, 6, 1]).all()
    assert rows.max() == 8191
    assert rows[2].tolist() == [8190, 8191, 0, 0, 0, 0, 0, 0]
    cut = words("one two three four five six seven eight", 5)[0]
    assert cut[0] == 8190
    assert cut[-1] == 8191
    assert (cut > 0).all()
    assert words("red")[0, 1] == 1 + zlib.crc32(b"red") % 8189
    with pytest.raises(UserError, match="no tokeniser 'bert'"):
        views.tokeniser("bert")
    with pytest.raises(UserError, match="3 or more"):
        words("a", 2)


def test_a_text_that_comes_again_is_numbered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["make it red, once", "make it blue", "make it red, once"]
    plain = views.tokeniser("words-77")(texts, 6)
    np.testing.assert_array_equal(views.token_rows("words-77", texts, 6), plain)
    asked: list[str] = []
    encode = HashedWords.encode
    monkeypatch.setattr(HashedWords, "encode", lambda self, text: [asked.append(text), *encode(self, text)][1:])
    np.testing.assert_array_equal(views.token_rows("words-77", texts, 6), plain)
    assert not asked
    views.token_rows("words-77", [*texts, "make it green", "make it green"], 6)
    assert asked == ["make it green"]
    assert views.token_rows("words-77", [], 6).shape == (0, 6)
    with pytest.raises(UserError, match="no tokeniser 'bert'"):
        views.token_rows("bert", texts, 6)


def test_clip_s_byte_pairs_are_open_clip_s() -> None:
    pytest.importorskip("open_clip")
    from open_clip.tokenizer import SimpleTokenizer

    texts = ["a photo of a cat.", "Ünïcode & <b>html</b> 🐱", "word " * 100, ""]
    ours = views.tokeniser("clip")
    assert ours.vocabulary == 49408
    np.testing.assert_array_equal(ours(texts), SimpleTokenizer()(texts, context_length=77).numpy())
    assert ours("a photo of a cat")[0, :7].tolist() == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert ours(texts)[2].argmax() == 76, "the end is forced into the last place"


def test_stop_words_go_unless_nothing_is_left() -> None:
    assert drop_stop_words(TEXT) == "photo big red dog street"
    assert drop_stop_words("to be or not to be") == "to be or not to be"
    assert "red" not in STOP_WORDS


def test_swaps_deletions_and_synonyms_do_what_they_say() -> None:
    for seed in range(20):
        swapped = swap_words(TEXT, _rng(seed)).split()
        assert sorted(swapped) == sorted(TEXT.split())
        assert sum(a != b for a, b in zip(swapped, TEXT.split(), strict=True)) in (0, 2)  # 'a' for 'A' counts as two
        replaced = replace_synonyms("the big dog", _rng(seed), 1).split()
        assert replaced[0] == "the"
        assert sum(a != b for a, b in zip(replaced, ["the", "big", "dog"], strict=True)) == 1
    assert swap_words("one", _rng()) == "one"
    assert delete_words("one two", _rng(), p=1.0) in ("one", "two")
    kept = np.mean([len(delete_words(" ".join("abcdefghij"), _rng(s), p=0.3).split()) for s in range(400)])
    assert abs(kept - 7) < 0.25
    assert replace_synonyms("qwerty", _rng()) == "qwerty"


def test_exactly_one_operation_with_its_weight() -> None:
    kinds = {"swap": 0, "synonym": 0, "delete": 0}
    for seed in range(2000):
        words = augment_text("big dog street tree", _rng(seed)).split()
        if len(words) < 4:
            kinds["delete"] += 1
        elif sorted(words) == ["big", "dog", "street", "tree"]:
            kinds["swap"] += words != ["big", "dog", "street", "tree"]
        else:
            kinds["synonym"] += 1
    assert abs(kinds["synonym"] / 2000 - 0.4) < 0.04
    assert abs(kinds["swap"] / 2000 - 0.4) < 0.04
    assert abs(kinds["delete"] / 2000 - 0.2 * (1 - 0.9**4)) < 0.03
    assert augment_text(TEXT, _rng(), synonym=0, swap=0, delete=0, identity=1) == TEXT


def test_a_table_of_synonyms_of_one_s_own(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("lung, pulmo\nred,rot, rouge\n")
    table = synonym_table(str(tmp_path / "words.txt"))
    assert table["red"] == ("rot", "rouge")
    assert table["pulmo"] == ("lung",)
    with pytest.raises(UserError, match="no table of synonyms"):
        synonym_table(str(tmp_path / "none.txt"))


def test_a_recipe_of_texts_is_a_function_of_its_draws() -> None:
    pipeline = Pipeline((views.PickText(), views.DropStopWords(), views.AugmentText(), views.Tokenise("words-512", 12)))
    recipe = Recipe((View("image", "image", views.plain(8)[0]), View("text", "text", pipeline)), {"text": "text"})
    sample = {"image": np.zeros((9, 9, 3), np.uint8), "text": (TEXT, "another text about it")}
    sizes = {"image": (9, 9, 3), "text": (2,)}
    rows = [recipe.render(sample, recipe.sample(_rng(s), sizes))["text"] for s in range(12)]
    again = recipe.render(sample, recipe.sample(_rng(3), sizes))["text"]
    np.testing.assert_array_equal(again, rows[3])
    assert all(row.shape == (12,) and row.dtype == np.int64 for row in rows)
    assert len({tuple(row) for row in rows}) > 6
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    alone = Pipeline((views.PickText(),))
    params, shape = alone.sample_shape(_rng(1), (2,), "text")
    assert shape == ()
    assert views.render(("a", "b"), alone, params, kind="text") in ("a", "b")
    with pytest.raises(UserError, match="Resize: can't be done to a field of kind 'text'"):
        views.render("a", Pipeline((views.Resize(4),)), np.zeros(5), kind="text")
    for wrong in ({"tokeniser": "bert"}, {"length": 1}):
        with pytest.raises(UserError, match="Tokenise"):
            views.Tokenise(**wrong)
    with pytest.raises(UserError, match="not all 0"):
        views.AugmentText(0, 0, 0, 0)
