"""Operations on clips, as the tests of the executors try them."""

from __future__ import annotations

from selftaught import views

INSTANCES = (
    views.ClipPair(3, stride=1),
    views.ClipPair(2, stride=2, interval="apart"),
    views.ClipSequence(2, clips=2, gap=1),
    views.DilatedClip(2, rates=(1, 2)),
    views.SpeedClips(2),
    views.EvenClips(2, clips=2),
    views.SideCrop(20, place=2),
    views.FramePart(2, start=1),
    views.ClipColorJitter(0.8, 0.8, 0.8, 0.2, p=1.0),
)
