"""Operations on volumes, as the tests of the executors try them."""

from __future__ import annotations

from selftaught import views

INSTANCES = (views.ResizeVolume((3, 24, 50)), views.ResizeVolume((8, 40, 17)))
