"""Alterations, as the tests of the executors try them."""

from __future__ import annotations

from selftaught import views

INSTANCES = (
    views.Alteration(),
    views.Alteration(("rain+fog", "night"), (0.5, 0.9)),
    views.Alteration(("dust", "frost", "ground_snow", "color"), (0.0, 1.0)),
)
