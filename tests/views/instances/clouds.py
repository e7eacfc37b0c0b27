"""Operations on clouds of points."""

from __future__ import annotations

from selftaught import views

INSTANCES = (
    views.KeepPlace(), views.CentreCloud(), views.TurnCloud(), views.TurnCloud(3, axis="x"), views.ScaleCloud(),
    views.FlipCloud(), views.JitterPlaces(), views.OnePerVoxel(0.3), views.CropCloud(50), views.DropPoints(0.5, p=1.0),
    views.CloudContrast(1.0), views.ShiftColours(), views.JitterColours(), views.CloudGrey(1.0),
)  # fmt: skip
