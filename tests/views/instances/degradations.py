"""Degradations, as the tests of the executors try them."""

from __future__ import annotations

import numpy as np

from selftaught import views

INSTANCES = (
    views.Downsample(4),
    views.Downsample(1.7),
    views.Upsample(2),
    views.Upsample(3, method="nearest"),
    views.GaussianNoise((0.01, 30.0)),
    views.CorrelatedNoise(0.2, kernel=3),
    views.JPEG(),
    views.Blur(np.outer([1, 2, 5], [0, 1, 3, 2, 0.5]) / 52),
    views.Blur(np.eye(15) / 15, border="wrap"),
    views.MotionBlur(13),
    views.MotionBlur(5, border="repeat"),
)
