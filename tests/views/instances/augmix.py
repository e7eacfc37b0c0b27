"""AugMix, as the tests of the executors try it."""

from __future__ import annotations

from selftaught import views

INSTANCES = (views.AugMix(), views.AugMix(severity=8.0, width=2, depth=1))
