"""RandomAffine, as the tests of the executors try it."""

from __future__ import annotations

from selftaught import views

INSTANCES = (views.RandomAffine(), views.RandomAffine(degrees=180, translate=0.5, scale=(0.5, 2.0)))
