"""Distances on the globe that are known, and answers by the nearest picture."""

from __future__ import annotations

import numpy as np
import pytest

from selftaught.errors import UserError
from selftaught.evaluation import geolocalisation, great_circle

PARIS, LONDON, SYDNEY, NEW_YORK = (48.8566, 2.3522), (51.5074, -0.1278), (-33.8688, 151.2093), (40.7128, -74.0060)


@pytest.mark.parametrize(
    ("a", "b", "kilometres"),
    [
        (PARIS, LONDON, 343.6),
        (LONDON, NEW_YORK, 5570.2),
        (PARIS, SYDNEY, 16960),
        ((0, 0), (0, 90), 6371.0088 * np.pi / 2),
        ((90, 0), (-90, 123), 6371.0088 * np.pi),
        ((0, 179.5), (0, -179.5), 6371.0088 * np.pi / 180),
        ((12, 34), (12, 34), 0.0),
    ],
)
def test_known_distances(a, b, kilometres: float) -> None:
    assert great_circle(a, b) == pytest.approx(kilometres, rel=2e-3, abs=1e-6)
    assert great_circle(b, a) == pytest.approx(great_circle(a, b))


def test_haversine_equals_the_angle_between_vectors(rng) -> None:
    places = np.stack([rng.uniform(-90, 90, 50), rng.uniform(-180, 180, 50)], 1)
    lat, lon = np.radians(places).T
    xyz = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], 1)
    angle = np.arccos(np.clip(xyz[:25] @ xyz[25:].T, -1, 1))
    found = great_circle(places[:25, None], places[None, 25:])
    np.testing.assert_allclose(found, 6371.0088 * angle, rtol=1e-6)


def test_the_nearest_picture_says_where() -> None:
    """Four queries: at the very place, 344 km off, across the Atlantic, and on the other side of the Earth."""
    x = np.eye(3)
    result = geolocalisation(
        x, [PARIS, NEW_YORK, SYDNEY], [x[0], x[0] + 0.1 * x[1], x[1], x[2]], [PARIS, LONDON, LONDON, PARIS]
    )
    assert [result[f"within {d} km"].mean for d in (1, 25, 200, 750, 2500)] == [0.25, 0.25, 0.25, 0.5, 0.5]
    np.testing.assert_allclose(result.figures["errors_km"], [0, 343.6, 5570.2, 16960], rtol=2e-3)
    assert result["median_error_km"].mean == pytest.approx((343.6 + 5570.2) / 2, rel=2e-3)
    assert result["within 750 km"].low < 0.5 < result["within 750 km"].high


def test_other_distances_and_length_of_features_do_not_matter(rng) -> None:
    x, places = rng.standard_normal((20, 5)), np.stack([np.arange(20.0), np.arange(20.0)], 1)
    result = geolocalisation(x, places, 9 * x, places, distances=(0.5, 3))
    assert result["within 0.5 km"].mean == 1
    assert list(result.numbers) == ["within 0.5 km", "within 3 km", "median_error_km"]


def test_wrong_input_is_one_line() -> None:
    x = np.eye(2)
    with pytest.raises(UserError, match="latitude 120"):
        geolocalisation(x, [(120, 4), (1, 2)], x, [PARIS, LONDON])
    with pytest.raises(UserError, match="1 columns"):
        geolocalisation(x, [1, 2], x, [PARIS, LONDON])
    with pytest.raises(UserError, match="one row for each"):
        geolocalisation(x, [PARIS], x, [PARIS, LONDON])
    with pytest.raises(UserError, match="above 0"):
        geolocalisation(x, [PARIS, LONDON], x, [PARIS, LONDON], distances=(0,))
