import math

import numpy as np
import pytest
import torch

from selftaught.errors import UserError
from selftaught.evaluation import knn, nearest, neighbours, retrieval


def literal_knn(train_x, train_y, test_x, k, t, weighted=True):
    """The sheet's words as loops in float64."""
    out = []
    for q in test_x:
        cosines = [float(q @ b / math.sqrt(q @ q) / math.sqrt(b @ b)) for b in train_x]
        order = sorted(range(len(train_x)), key=lambda i: -cosines[i])[:k]
        votes = {}
        for i in order:
            votes[train_y[i]] = votes.get(train_y[i], 0.0) + (math.exp(cosines[i] / t) if weighted else 1.0)
        out.append(votes)
    return out


@pytest.mark.parametrize(("k", "t"), [(1, 0.1), (5, 0.07), (20, 0.5)])
def test_votes_equal_the_literal_loops(rng, k, t):
    bank, queries = rng.normal(size=(60, 7)), rng.normal(size=(25, 7))
    labels = rng.integers(0, 4, 60)
    votes = neighbours.vote(
        neighbours.normalise(torch.tensor(bank)),
        torch.tensor(labels),
        neighbours.normalise(torch.tensor(queries)),
        4,
        k=k,
        temperature=t,
    )
    for row, expected in zip(votes.numpy(), literal_knn(bank, labels, queries, k, t), strict=True):
        total = sum(expected.values())
        np.testing.assert_allclose(row, [expected.get(c, 0.0) / total for c in range(4)], atol=1e-12)


def test_accuracy_equals_the_literal_loops(blobs):
    x, y, tx, ty = blobs
    expected = [max(v, key=v.get) for v in literal_knn(x, y, tx, 20, 0.1)]
    result = knn(x, y, tx, ty, k=20, temperature=0.1)
    assert result["accuracy"].mean == pytest.approx(np.mean(np.array(expected) == ty))
    assert result["accuracy"].low < result["accuracy"].mean < result["accuracy"].high


def test_counting_heads_and_its_ties():
    bank = np.array([[1, 0.0], [1, 0.2], [1, 0.6], [1, 0.7], [0, 1]])
    labels = np.array([0, 1, 1, 0, 1])
    heads = knn(bank, labels, [[1.0, 0.0]], [1], k=3, weighted=False)
    assert heads["accuracy"].mean == 1.0  # two votes of class 1 against the nearest one of class 0
    assert knn(bank, labels, [[1.0, 0.0]], [0], k=3, temperature=0.01)["accuracy"].mean == 1.0
    assert knn(bank, labels, [[1.0, 0.0]], [0], k=2, weighted=False)["accuracy"].mean == 1.0  # a tie: the nearer


def test_chunks_change_nothing(blobs, monkeypatch):
    x, y, tx, ty = blobs
    whole = knn(x, y, tx, ty), retrieval(tx, ty), nearest(x, tx)
    monkeypatch.setattr(neighbours, "CELLS", 3 * 400)
    parts = knn(x, y, tx, ty), retrieval(tx, ty), nearest(x, tx)
    assert whole[0] == parts[0]
    assert whole[1] == parts[1]
    np.testing.assert_array_equal(whole[2], parts[2])


def test_memory_stays_bounded(monkeypatch):
    """No block of similarities is larger than the set number of cells."""
    monkeypatch.setattr(neighbours, "CELLS", 5000)
    for rows in neighbours.chunks(777, 100):
        assert (rows.stop - rows.start) * 100 <= 5000
    assert sum(rows.stop - rows.start for rows in neighbours.chunks(777, 100)) == 777
    assert [r.stop - r.start for r in neighbours.chunks(3, 10**9)] == [1, 1, 1]


def test_shuffled_labels_are_at_chance(blobs, rng):
    x, y, tx, ty = blobs
    accuracy = knn(x, rng.permutation(y), tx, rng.permutation(ty))["accuracy"]
    assert accuracy.low <= 0.1 <= accuracy.high
    assert knn(x, y, tx, ty)["accuracy"].low > 0.3


def test_scale_and_rotation_do_not_matter(blobs, rng):
    x, y, tx, ty = blobs
    turn = np.linalg.qr(rng.normal(size=(16, 16)))[0]
    scales = rng.uniform(0.1, 9, (len(x), 1))
    assert knn(scales * x @ turn, y, 3 * tx @ turn, ty).numbers == knn(x, y, tx, ty).numbers


def test_k_is_clipped_with_a_note_and_zero_rows_are_harmless():
    result = knn(np.array([[1.0, 0], [0, 1]]), [0, 1], np.array([[0.0, 0], [0, 2]]), [0, 1], k=200)
    assert "clipped to the 2" in result.note
    assert 0 <= result["accuracy"].mean <= 1


def test_classes_that_one_side_lacks_are_noted(blobs):
    x, y, tx, ty = blobs
    assert "class 9 not in the test set" in knn(x, y, tx[ty < 9], ty[ty < 9]).note
    unseen = knn(x[y < 9], y[y < 9], tx, ty)
    assert "class 9 not in the training set" in unseen.note
    assert unseen.figures["per_class"]["accuracy"][9] == 0.0


def test_bad_options():
    x, y = np.eye(4), [0, 1, 0, 1]
    with pytest.raises(UserError, match="k: 0"):
        knn(x, y, x, y, k=0)
    with pytest.raises(UserError, match="temperature"):
        knn(x, y, x, y, temperature=0.0)


def test_average_precision_by_hand():
    """Relevant at ranks 1, 3 and 4 of five: AP = (1/1 + 2/3 + 3/4) / 3."""
    angles = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    gallery = np.stack([np.cos(angles), np.sin(angles)], 1)
    result = retrieval(gallery, [1, 0, 1, 1, 0], np.array([[1.0, 0.0]]), [1], ks=(1, 2, 5))
    assert result["map"].mean == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert [result[f"precision@{k}"].mean for k in (1, 2, 5)] == pytest.approx([1.0, 0.5, 0.6])


def test_retrieval_among_themselves_equals_scikit_learn(blobs):
    from sklearn.metrics import average_precision_score

    _, _, x, y = blobs
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosine = unit @ unit.T
    expected = []
    for i in range(len(x)):
        others = np.arange(len(x)) != i
        expected.append(average_precision_score(y[others] == y[i], cosine[i, others]))
    result = retrieval(x, y)
    assert result["map"].mean == pytest.approx(np.mean(expected), abs=1e-6)
    nearest_other = np.argsort(-(cosine - 9 * np.eye(len(x))), 1)[:, 0]
    assert result["precision@1"].mean == pytest.approx((y[nearest_other] == y).mean())


def test_a_collapsed_encoder_scores_chance_whatever_the_order(rng):
    from sklearn.metrics import average_precision_score

    y = np.sort(np.arange(90) % 9)
    one = rng.normal(size=16).astype(np.float32)
    noise = 1 + 1e-7 * rng.normal(size=(90, 1)).astype(np.float32)
    chance = 9 / 89
    for x in (np.tile(one, (90, 1)), noise * one, np.zeros((90, 3))):
        result = retrieval(x, y)
        assert result["map"].mean == pytest.approx(chance)
        for k in (1, 5, 10):
            assert result[f"precision@{k}"].mean == pytest.approx(chance)
    coarse = rng.integers(0, 3, (90, 4)).astype(np.float64) + 0.5
    unit = coarse / np.linalg.norm(coarse, axis=1, keepdims=True)
    cosine = np.round(unit @ unit.T, 12)
    others = ~np.eye(90, dtype=bool)
    expected = [average_precision_score((y == y[i])[others[i]], cosine[i, others[i]]) for i in range(90)]
    assert retrieval(coarse, y)["map"].mean == pytest.approx(np.mean(expected))
    order = rng.permutation(90)
    assert retrieval(coarse[order], y[order])["map"].mean == pytest.approx(np.mean(expected))


def test_ties_count_with_their_mean_over_all_orders():
    """Every order of the tied items by hand, for precision@k and the trapezoid; three places of which one is tied."""
    from itertools import permutations

    scores = np.array([0.9, 0.5, 0.5, 0.5, 0.2])
    relevant = np.array([0, 1, 0, 1, 1])
    areas, among = [], []
    for middle in permutations([1, 2, 3]):
        hit = relevant[[0, *middle, 4]]
        precision = np.cumsum(hit) / np.arange(1, 6)
        ahead = np.concatenate([[1.0], precision[:-1]])
        areas.append((hit * (ahead + precision)).sum() / 2 / hit.sum())
        among.append(hit[:2].mean())
    ranked = neighbours.Ranking.of(torch.tensor(scores)[None], torch.tensor(relevant)[None].bool())
    assert float(ranked.trapezoid()) == pytest.approx(np.mean(areas))
    assert float(ranked.precision(2)) == pytest.approx(np.mean(among))
    assert float(ranked.average_precision()) == pytest.approx((2 * 2 / 4 + 3 / 5) / 3)


def test_retrieval_leaves_out_what_has_no_match_and_says_so():
    x = np.eye(5)[:4] + 0.1
    result = retrieval(x, [0, 0, 1, 2], ks=(1, 50))
    assert "2 queries without a relevant item" in result.note
    assert "clipped to 3" in result.note
    with pytest.raises(UserError, match="no query"):
        retrieval(x, [0, 1, 2, 3])
    with pytest.raises(UserError, match="together"):
        retrieval(x, [0, 1, 0, 1], x)


def test_nearest_by_index_and_by_features(rng):
    x = rng.normal(size=(50, 5))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosine = unit @ unit.T
    by_feature = nearest(x, x[[3, 8]], k=4)
    np.testing.assert_array_equal(by_feature, np.argsort(-cosine[[3, 8]], 1)[:, :4])
    by_index = nearest(x, [3, 8], k=3)
    np.testing.assert_array_equal(by_index, by_feature[:, 1:])
    assert nearest(x, torch.tensor([0]), k=500).shape == (1, 49)
    for bad in ([50], [-1], [0.5], []):
        with pytest.raises(UserError, match="queries"):
            nearest(x, np.array(bad))
    with pytest.raises(UserError, match="neighbour"):
        nearest(x, [0], k=0)
