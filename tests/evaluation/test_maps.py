"""Clustering and the map of the embeddings."""

import numpy as np
import pytest

from selftaught.errors import UserError
from selftaught.evaluation import clustering, project


def far_apart(rng, k=4, n=120, d=10):
    y = np.arange(n) % k
    return 8 * np.eye(d)[y] + 0.3 * rng.normal(size=(n, d)), y


def test_separate_classes_are_found_whatever_their_numbers(rng):
    x, y = far_apart(rng)
    result = clustering(x, np.array([30, 2, 17, 5])[y], seeds=3)
    assert max(result["accuracy"].values) == 1.0
    assert max(result["nmi"].values) == pytest.approx(1.0)
    assert max(result["ari"].values) == pytest.approx(1.0)
    assert len(result["nmi"].values) == 3


def test_chance_is_zero_for_ari_and_more_clusters_than_classes_match_in_part(rng):
    x, y = far_apart(rng)
    assert clustering(x, rng.permutation(y))["ari"].mean == pytest.approx(0, abs=0.05)
    split = clustering(x, y, k=8, seeds=[0])
    assert split["accuracy"].mean < 1  # only four of the eight clusters have a class
    assert split["nmi"].mean > 0.7


def test_clustering_errors(rng):
    x, y = far_apart(rng)
    with pytest.raises(UserError, match="two classes"):
        clustering(x, 0 * y)
    with pytest.raises(UserError, match="k: 999"):
        clustering(x, y, k=999)


def test_tsne_keeps_classes_together_and_repeats(rng):
    x, y = far_apart(rng)
    first, second = project(x), project(x)
    np.testing.assert_array_equal(first.coordinates, second.coordinates)
    assert first.method == "tsne"
    assert first.coordinates.shape == (120, 2)
    assert np.abs(first.coordinates).max() == pytest.approx(1)
    centres = np.stack([first.coordinates[y == c].mean(0) for c in range(4)])
    distance = np.linalg.norm(first.coordinates[:, None] - centres, axis=-1)
    assert (distance.argmin(1) == y).mean() > 0.95


def test_pca_is_the_first_two_components(rng):
    x = rng.normal(size=(60, 5)) * [9, 4, 1, 0.5, 0.1]
    found = project(x, method="pca", unit=False)
    u, s, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    for c in range(2):
        assert abs(np.corrcoef(found.coordinates[:, c], (u * s)[:, c])[0, 1]) == pytest.approx(1)
    wide = project(x[:4], method="pca", unit=False)
    assert wide.coordinates.shape == (4, 2)


def test_large_sets_are_subsampled(rng):
    found = project(rng.normal(size=(300, 3)), limit=40, method="pca")
    assert len(found.index) == len(found.coordinates) == 40
    assert (np.diff(found.index) > 0).all()


def test_small_and_degenerate_inputs_still_give_a_map(rng):
    for x in (rng.normal(size=(3, 9)), np.ones((50, 6)), rng.normal(size=(5, 1))):
        found = project(x)
        assert found.method == "pca"
        assert np.isfinite(found.coordinates).all()
    assert np.isfinite(project(rng.normal(size=(20, 1)), unit=False).coordinates).all()
    with pytest.raises(UserError, match="umap"):
        project(np.eye(9), method="umap")
