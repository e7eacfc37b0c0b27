"""Geolocalisation: where was this picture taken? The place of its nearest neighbour, judged by the distance (im2gps).

Hays and Efros, CVPR 2008; the distances of the table as in SEER (arXiv 2202.08360).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from selftaught.errors import UserError
from selftaught.evaluation._inputs import Array, as_targets, feature_pair
from selftaught.evaluation._protocol import protocol
from selftaught.evaluation.neighbours import nearest
from selftaught.evaluation.result import Number, Result

__all__ = ["geolocalisation", "great_circle"]

EARTH_RADIUS = 6371.0088
"""Mean radius of the Earth in km (IUGG)."""
DISTANCES = (1.0, 25.0, 200.0, 750.0, 2500.0)
"""Kilometres that stand for street, city, region, country and continent."""


def great_circle(a: Any, b: Any) -> np.ndarray:
    """Distance along the surface of the Earth taken as a sphere (haversine formula).

    Args:
        a: ``(..., 2)`` latitude and longitude in degrees.
        b: ``(..., 2)``.

    Returns:
        ``(...)`` kilometres, float64.
    """
    first, second = np.radians(np.asarray(a, dtype=np.float64)), np.radians(np.asarray(b, dtype=np.float64))
    half = np.sin((second - first) / 2) ** 2
    chord = half[..., 0] + np.cos(first[..., 0]) * np.cos(second[..., 0]) * half[..., 1]
    return 2 * EARTH_RADIUS * np.arcsin(np.sqrt(np.clip(chord, 0, 1)))


@protocol("geolocalisation", "place of the nearest picture: share within 1 to 2500 km", inputs="places")
def geolocalisation(
    train_x: Array,
    train_places: Array,
    test_x: Array,
    test_places: Array,
    *,
    distances: Sequence[float] = DISTANCES,
) -> Result:
    """Every test picture is put where its nearest neighbour by cosine in the database was taken.

    Args:
        train_x: ``(n, d)`` features of the database.
        train_places: ``(n, 2)`` latitude and longitude in degrees.
        test_x: ``(m, d)`` features.
        test_places: ``(m, 2)``.
        distances: kilometres within which an answer counts, default 1, 25, 200, 750 and 2500.

    Returns:
        ``Result`` "geolocalisation": ``within K km``, shares in [0, 1], and ``median_error_km``, all with bootstrap
        intervals over test pictures; figure ``errors_km`` (m,).

    Raises:
        UserError: NaN, widths or lengths that do not match, a place that is none, no distance.
    """
    train, test = feature_pair(train_x, test_x)
    known, truth = as_places(train_places, len(train), "train places"), as_places(test_places, len(test), "test places")
    if not len(distances) or min(distances) <= 0:
        raise UserError(f"distances: {list(distances)}; pass kilometres above 0")
    found = nearest(train, test, k=1)[:, 0]
    error = great_circle(known[found], truth)
    numbers = {f"within {d:g} km": Number.bootstrap(error <= d) for d in distances}
    numbers["median_error_km"] = Number.bootstrap(error, lambda rows: float(np.median(rows)))
    return Result("geolocalisation", numbers, {"errors_km": error})


def as_places(places: Array, n: int, name: str = "places") -> np.ndarray:
    """Latitudes and longitudes in degrees as ``(n, 2)`` float64.

    Raises:
        UserError: another shape, not finite, a latitude beyond 90 or a longitude beyond 360.
    """
    values = as_targets(places, n, name)
    if values.shape[1] != 2:
        raise UserError(f"{name}: {values.shape[1]} columns; pass latitude and longitude, (n, 2)")
    wrong = np.flatnonzero((np.abs(values[:, 0]) > 90) | (np.abs(values[:, 1]) > 360))
    if len(wrong):
        lat, lon = values[wrong[0]]
        raise UserError(
            f"{name}: row {wrong[0]} is at latitude {lat:g}, longitude {lon:g}; pass degrees, latitude first"
        )
    return values
