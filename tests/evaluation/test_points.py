"""Protocols on features per point."""

from __future__ import annotations

import numpy as np
import pytest

from selftaught import evaluation
from selftaught.errors import UserError
from selftaught.evaluation.points import principal_directions

RNG = np.random.default_rng(0)


def scans(count: int, noise: float = 0.1) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Three classes about three corners; a tenth of the points has no class."""
    ys = [RNG.integers(0, 3, 60) for _ in range(count)]
    xs = [np.eye(3)[y] + noise * RNG.normal(size=(60, 3)) for y in ys]
    for y in ys:
        y[:6] = -1
    return xs, ys


def test_separable_classes_are_told_apart_and_noise_is_not() -> None:
    train, test = scans(5), scans(3)
    for protocol, options in (("point-linear", {"epochs": 200}), ("point-knn", {}), ("point-knn", {"k": 3})):
        found = evaluation.PROTOCOLS[protocol](*train, *test, **options)
        assert found.name == protocol
        assert found["miou"].mean > 0.9
        assert found["accuracy"].mean > 0.9
        assert set(found.numbers) == {"miou", "accuracy", "iou 0", "iou 1", "iou 2"}
        assert np.sum(found.figures["confusion"]["matrix"]) == 3 * 54
    noise = [RNG.normal(size=(60, 3)) for _ in range(3)]
    assert evaluation.point_linear(*train, noise, test[1], epochs=20)["miou"].mean < 0.5
    again = [evaluation.point_linear(*train, *test, epochs=3)["miou"].mean for _ in range(2)]
    assert again[0] == again[1]


def test_the_mean_over_classes_is_that_of_intersection_over_union() -> None:
    x = [np.array([[1.0, 0], [1, 0], [0, 1], [0, 1]])]
    found = evaluation.point_knn(x, [np.array([0, 0, 1, 1])], x, [np.array([0, 1, 1, 1])])
    assert found["iou 0"].mean == 0.5
    assert found["iou 1"].mean == pytest.approx(2 / 3)
    assert found["miou"].mean == pytest.approx((0.5 + 2 / 3) / 2)
    assert found["accuracy"].mean == 0.75


def test_principal_components_and_their_colours() -> None:
    x = RNG.normal(size=(500, 5)) * (5, 3, 2, 0.1, 0.1)
    directions = principal_directions(x, 3)
    np.testing.assert_allclose(np.abs(directions[:, :3]), np.eye(3), atol=0.1)
    colours = evaluation.principal_colours(x)(x)
    assert colours.dtype == np.uint8
    assert colours.shape == (500, 3)
    assert np.ptp(colours, axis=0).tolist() == [255, 255, 255]
    assert evaluation.point_pca([x])["explained_3"].mean == pytest.approx(1, abs=1e-2)
    with pytest.raises(UserError, match="3 points and 3 features"):
        evaluation.principal_colours(x[:, :2])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda x, y: ([x[0][:5]], y[:1]), "one class"),
        (lambda x, y: (x, [np.full(60, -1)] * 2), "no point has a class"),
        (lambda x, y: ([x[0], x[1][:, :2]], y), "of one D"),
        (lambda x, y: ([x[0] * np.nan, x[1]], y), "NaN"),
    ],
)
def test_what_does_not_fit_is_refused(change: object, reason: str) -> None:
    x, y = scans(2)
    for protocol in (evaluation.point_linear, evaluation.point_knn):
        with pytest.raises(UserError, match=reason):
            protocol(*change(x, y), x, y)
    with pytest.raises(UserError, match="epochs=0"):
        evaluation.point_linear(x, y, x, y, epochs=0)
    with pytest.raises(UserError, match="k=999"):
        evaluation.point_knn(x, y, x, y, k=999)
