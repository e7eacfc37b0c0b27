"""Degradations of the night."""

from __future__ import annotations

from selftaught import views

INSTANCES = (views.WalkBlur(9), views.CameraNoise(), views.CameraNoise(8.0, row=0.0), views.Saturate(1.2))
