"""Drawn text, as the tests of the executors try it."""

from __future__ import annotations

from selftaught import views

INSTANCES = (views.DrawText(), views.DrawText(4))
