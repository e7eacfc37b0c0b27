"""Reflections, as the tests of the executors try them."""

from __future__ import annotations

from selftaught import views

INSTANCES = (
    views.GlassDraw(),
    views.Reflection(),
    views.Reflection("ceilnet"),
    views.Reflection("linear", sigma=(1.0, 2.0)),
)
