"""Clusters, water-filling, leaf rules, near-duplicates and what is chosen by them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from selftaught.data import curation
from selftaught.data.curation import SelectionOptions
from selftaught.errors import UserError

SIZES = (2000, 1000, 600, 400, 250, 150, 100, 60, 40, 20)


def blobs(seed: int = 0, sizes: tuple[int, ...] = SIZES) -> tuple[np.ndarray, np.ndarray]:
    """The sheet's blobs: centres N(0, 9 I), deviation 0.5, dimension 16."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    centres = 3 * rng.normal(size=(len(sizes), 16))
    return centres[labels] + 0.5 * rng.normal(size=(len(labels), 16)), labels


def entropy(labels: np.ndarray) -> float:
    share = np.bincount(labels) / len(labels)
    share = share[share > 0]
    return float(-(share * np.log2(share)).sum())


# ---- water-filling -----------------------------------------------------------------------------------------------
def test_water_fills_evenly_and_to_the_last_drop() -> None:
    assert curation.water_filling((100, 10, 3), 30).tolist() == [17, 10, 3]
    assert curation.water_filling((100, 10, 3), 113).tolist() == [100, 10, 3]
    assert curation.water_filling((100, 10, 3), 500).tolist() == [100, 10, 3]
    assert curation.water_filling((100, 10, 3), 0).tolist() == [0, 0, 0]
    assert curation.water_filling((3, 1), 7, multiplier=2).tolist() == [5, 2]
    rng = np.random.default_rng(0)
    for _ in range(300):
        sizes = rng.integers(0, 40, rng.integers(1, 12))
        target, multiplier = int(rng.integers(0, 300)), int(rng.integers(1, 3))
        found = curation.water_filling(sizes, target, multiplier=multiplier, rng=rng)
        capacity = sizes * multiplier
        assert found.sum() == min(target, capacity.sum())
        assert (found <= capacity).all()
        cut = found[found < capacity]
        assert not len(cut) or np.ptp(cut) <= 1
        assert not len(cut) or found.max() <= cut.min() + 1  # nobody gives more than those that still have some


def test_who_gets_the_remainder_is_drawn() -> None:
    extra = [curation.water_filling((9, 9, 9), 10, rng=np.random.default_rng(s)).argmax() for s in range(30)]
    assert set(extra) == {0, 1, 2}


@pytest.mark.parametrize(
    ("sizes", "options"),
    [((-1, 2), {}), ((1.5,), {}), (((1, 2),), {}), ((1,), {"target": -1}), ((1,), {"multiplier": 0})],
)
def test_wrong_sizes_are_refused(sizes, options) -> None:
    with pytest.raises(UserError, match="water_filling"):
        curation.water_filling(sizes, **{"target": 1} | options)


def test_budgets_are_balanced_between_parents_first() -> None:
    leaves = np.repeat(np.arange(10), 10)
    centroids = (np.zeros((10, 2), np.float32), np.zeros((2, 2), np.float32))
    tree = curation.Tree(centroids, (np.array([0] * 9 + [1]),), leaves, np.zeros(100, np.float32))
    budgets = curation.leaf_budgets(tree, 20)
    assert budgets[:9].sum() == budgets[9] == 10
    assert len(curation.balanced_sample(tree, 20)) == 20
    assert len(np.unique(curation.balanced_sample(tree, 1000))) == 100
    repeated = curation.balanced_sample(tree, 140, multiplier=2)
    assert len(repeated) == 140
    assert np.bincount(repeated).max() == 2


# ---- leaves ------------------------------------------------------------------------------------------------------
def test_eta_goes_from_the_middle_to_the_edge() -> None:
    d = np.linalg.norm(np.random.default_rng(0).normal(size=(2000, 8)), axis=1)
    means = [d[curation.leaf_sample(d, 200, eta=eta)].mean() for eta in (0, 0.25, 0.5, 0.75, 1)]
    assert (np.diff(means) > 0.1).all()
    assert abs(means[2] - d.mean()) < 0.15
    closest, farthest = (curation.leaf_sample(d, 200, leaf=leaf) for leaf in ("closest", "farthest"))
    assert d[closest].max() == np.sort(d)[199]
    assert d[farthest].min() == np.sort(d)[-200]
    assert len(np.unique(curation.leaf_sample(d, 2000))) == 2000
    assert curation.leaf_sample(np.ones(5), 2, eta=1).shape == (2,)


def test_the_first_draw_has_the_weights_chance() -> None:
    """Gumbel top-1 is a draw from softmax(gamma z)."""
    d, rng = np.array([0.0, 1.0, 3.0]), np.random.default_rng(0)
    z = (d - d.mean()) / d.std()
    expected = np.exp(2 * z) / np.exp(2 * z).sum()  # eta 0.75: gamma 2
    drawn = [int(curation.leaf_sample(d, 1, eta=0.75, rng=rng)[0]) for _ in range(4000)]
    np.testing.assert_allclose(np.bincount(drawn, minlength=3) / 4000, expected, atol=0.03)


# ---- k-means -----------------------------------------------------------------------------------------------------
def literal_lloyd(x: np.ndarray, start: np.ndarray, iterations: int) -> tuple[np.ndarray, np.ndarray]:
    x, c = x.astype(np.float64), start.astype(np.float64)
    for _ in range(iterations):
        own = ((x[:, None] - c) ** 2).sum(2).argmin(1)
        c = np.stack([x[own == j].mean(0) for j in range(len(c))])
    return c, ((x[:, None] - c) ** 2).sum(2).argmin(1)


def test_kmeans_is_lloyds_algorithm_far_from_the_origin_too() -> None:
    x, _ = blobs(sizes=(80, 60, 40))
    x = x.astype(np.float32) + 1000
    start = x[[0, 90, 150]]
    found = curation.kmeans(x, 3, iterations=4, start=start)
    centroids, labels = literal_lloyd(x, start, 4)
    np.testing.assert_allclose(found.centroids, centroids, atol=1e-3)
    assert np.array_equal(found.labels, labels)
    d = np.linalg.norm(x - centroids[labels], axis=1)
    np.testing.assert_allclose(found.distances, d, rtol=1e-3)
    assert found.inertia == pytest.approx((d**2).sum(), rel=1e-3)


def test_kmeans_in_faiss_ends_where_ours_does() -> None:
    pytest.importorskip("faiss")
    x, _ = blobs(sizes=(80, 60, 40))
    start = curation.kmeans_plusplus(x, 3)
    ours, theirs = (curation.kmeans(x, 3, start=start, iterations=20, backend=b) for b in ("torch", "faiss"))
    np.testing.assert_allclose(ours.centroids, theirs.centroids, atol=1e-3)


def test_a_cluster_that_runs_empty_begins_anew() -> None:
    x = np.array([[0.0], [0.1], [5.0], [5.1], [9.0]])
    start = np.array([[0.0], [5.0], [1000.0]], dtype=np.float32)
    found = curation.kmeans(x, 3, start=start, iterations=10)
    assert len(np.unique(found.labels)) == 3
    assert found.inertia < 0.02


def test_more_clusters_than_points_are_refused_and_lowered_in_a_tree() -> None:
    x = np.repeat(np.eye(3), 20, axis=0)
    with pytest.raises(UserError, match="3 distinct points only"):
        curation.kmeans(x, 5)
    tree = curation.hierarchical_kmeans(x, (5, 2))
    assert [len(c) for c in tree.centroids] == [3, 2]
    assert tree.ancestors(1).shape == (3,)
    with pytest.raises(UserError, match="fall from level"):
        curation.hierarchical_kmeans(x, (2, 5))
    with pytest.raises(UserError, match="NaN"):
        curation.kmeans(np.full((3, 2), np.nan), 1)


def test_plusplus_spreads_and_is_fixed_by_its_seed() -> None:
    x, labels = blobs()
    first = curation.kmeans_plusplus(x, 10, seed=3)
    assert np.array_equal(first, curation.kmeans_plusplus(torch.from_numpy(x), 10, seed=3))
    assert not np.array_equal(first, curation.kmeans_plusplus(x, 10, seed=4))
    own = labels[((x[:, None] - first) ** 2).sum(2).argmin(0)]
    assert len(np.unique(own)) >= 8  # ten at random hit five or six


def test_resampling_flattens_density() -> None:
    """Half of the points in a narrow bump: with resampling fewer centroids crowd in it."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-10, 10, (1000, 2)), 0.5 * rng.normal(size=(3000, 2))])

    def inside(rounds: int) -> int:
        tree = curation.hierarchical_kmeans(x, (60,), resampling=rounds, resample_points=5)
        return int((np.linalg.norm(tree.centroids[0], axis=1) < 1.5).sum())

    assert inside(5) < inside(0)


# ---- selection ---------------------------------------------------------------------------------------------------
def test_the_selection_is_balanced_and_keeps_the_rare() -> None:
    x, labels = blobs()
    tree = curation.hierarchical_kmeans(x, (40, 10))
    kept = curation.balanced_sample(tree, 462)
    assert len(kept) == 462
    assert entropy(labels[kept]) > 3.1
    assert np.bincount(labels[kept], minlength=10)[-2:].tolist() == [40, 20]
    random = curation.choose(x, 462, SelectionOptions(selection="random")).indices
    assert entropy(labels[random]) < 2.6


def test_a_choice_is_fixed_by_its_seed_leaves_out_what_cannot_be_read_and_never_repeats() -> None:
    x, _ = blobs(sizes=(200, 100, 30))
    x[5] = np.nan
    for mode in ("balanced", "flat", "semdedup", "prototypes", "random"):
        options = SelectionOptions(selection=mode)
        a, b, c = (curation.choose(x, 60, options, seed=seed) for seed in (1, 1, 2))
        assert np.array_equal(a.indices, b.indices)
        assert len(np.unique(a.indices)) == 60
        assert 5 not in a.indices
        assert mode == "prototypes" or mode == "semdedup" or not np.array_equal(a.indices, c.indices)
        assert len(curation.choose(x, 10_000, options).indices) == 329
    assert a.tree is None
    tree = curation.choose(x, 60, SelectionOptions(cluster_share=0.5, cluster_least=50)).tree
    assert tree.labels[5] == -1
    assert (np.delete(tree.labels, 5) >= 0).all()


def test_collapsed_features_choose_at_random_and_say_so() -> None:
    x = np.ones((300, 8)) + 1e-4 * np.random.default_rng(0).normal(size=(300, 8))
    found = curation.choose(x, 30)
    assert found.mode == "random"
    assert "at random" in found.note
    unit = curation.unit_rows(np.random.default_rng(0).normal(size=(50, 4)))
    cosines = (unit @ unit.T)[~np.eye(50, dtype=bool)]
    assert curation.mean_cosine(unit) == pytest.approx(cosines.mean(), abs=1e-6)


def literal_semdedup(x: np.ndarray, labels: np.ndarray, d: np.ndarray, eps: float) -> set[int]:
    kept: list[int] = []
    for i in sorted(range(len(x)), key=lambda i: (labels[i], -d[i])):
        cosines = [x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j]) for j in kept if labels[j] == labels[i]]
        if not cosines or max(cosines) <= 1 - eps:
            kept.append(i)
    return set(kept)


def test_semdedup_keeps_one_of_near_duplicates(monkeypatch) -> None:
    from selftaught.data.curation import density

    monkeypatch.setattr(density, "_BLOCK", 7)  # so that clusters span several blocks
    rng = np.random.default_rng(0)
    base = rng.normal(size=(40, 6))
    x = np.concatenate([base, base[:20] + 0.02 * rng.normal(size=(20, 6)), base[:5] * 3])
    labels, d = np.repeat([0, 1], [30, 35]), rng.random(65)
    found = curation.semdedup(x, labels, d, eps=0.05)
    kept = set(np.flatnonzero(found.similarity <= 0.95).tolist())
    assert kept == literal_semdedup(x, labels, d, 0.05)
    dropped = [i for i in range(65) if i not in kept]
    assert all(found.of[i] in kept and labels[found.of[i]] == labels[i] for i in dropped)

    closest = curation.near_duplicates(x, labels, d)
    order = sorted(range(30), key=lambda i: -d[i])
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    assert closest.of[order[0]] == -1
    last = order[-1]
    assert closest.similarity[last] == pytest.approx(max(unit[last] @ unit[j] for j in order[:-1]), abs=1e-5)

    chosen = curation.choose(x, 40, SelectionOptions(selection="semdedup", levels="1"))
    assert len(chosen.indices) == 40
    pairs = [(i, i + 40) for i in range(20)]
    assert sum(a in chosen.indices and b in chosen.indices for a, b in pairs) == 0
    free = curation.choose(x, None, SelectionOptions(selection="semdedup", levels="1"), eps=0.05)
    assert 35 <= len(free.indices) <= 40
    with pytest.raises(UserError, match="how many to keep"):
        curation.choose(x, None)
    with pytest.raises(UserError, match="is for selection=semdedup"):
        curation.choose(x, None, eps=0.1)


def test_prototypes_keep_the_hardest() -> None:
    assert curation.prototype_pruning([1.0, 5.0, 3.0, 4.0], 2).tolist() == [1, 3]
    assert curation.prototype_pruning([1.0, 5.0, 3.0, 4.0], 2, keep="easy").tolist() == [0, 2]


def test_levels_are_read_or_follow_the_number_of_samples() -> None:
    assert curation.level_sizes("auto", 6000) == (200, 40)
    assert curation.level_sizes("auto", 100) == (3,)
    assert curation.level_sizes("5000-1000", 7) == (5000, 1000)
    with pytest.raises(UserError, match="levels"):
        SelectionOptions(levels="5000,1000")
