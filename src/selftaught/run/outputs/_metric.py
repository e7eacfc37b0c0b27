"""What makes depth of a network's unit depth in metres: one number that is known of the scene or the camera."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from selftaught.errors import UserError

__all__ = ["Scale", "camera_height", "flicker"]

Kind = Literal["", "median", "height", "baseline"]


@dataclass(frozen=True)
class Scale:
    """How a video's depth is scaled: not at all, or so that something has a known length in metres.

    Attributes:
        kind: "", "median" (of all depths), "height" (of the camera over the ground), "baseline" (the mean way from a
            frame to the next).
        metres: that length; None for "median" alone: the median becomes 1, and depth stays relative.
    """

    kind: Kind = ""
    metres: float | None = None

    @classmethod
    def parse(cls, text: str) -> Scale:
        """Read ``median``, ``median=4.2``, ``height=1.65`` or ``baseline=0.1``; "" is none.

        Raises:
            UserError: anything else.
        """
        if not text:
            return cls()
        name, _, value = text.partition("=")
        try:
            metres = float(value) if value else None
        except ValueError:
            metres = -1.0
        wrong = name not in ("median", "height", "baseline") or (metres is not None and not 0 < metres < math.inf)
        if wrong or (metres is None and name != "median"):
            raise UserError(f"--scale {text}: write median, median=4.2, height=1.65 or baseline=0.1 (metres)")
        return cls(name, metres)  # type: ignore[arg-type]

    @property
    def metric(self) -> bool:
        """Whether depth is in metres."""
        return self.metres is not None

    def words(self) -> str:
        """For the reader of depth.json."""
        if not self.kind:
            return "none: depth is relative, up to one unknown factor"
        known = f"{self.kind} = {self.metres:g} m" if self.metres is not None else "median = 1: depth is relative"
        return known

    def factor(self, disparity: np.ndarray, shares: np.ndarray | None, ways: np.ndarray | None) -> float:
        """What 1 / disparity is multiplied by.

        Args:
            disparity: (T, h, w) of a video.
            shares: intrinsics (4,), for the height.
            ways: (T - 1,) lengths of the camera's way from frame to frame, for the baseline.

        Raises:
            UserError: a camera that isn't known, no ground in sight, a camera that stood still.
        """
        if not self.kind:
            return 1.0
        metres = 1.0 if self.metres is None else self.metres
        if self.kind == "median":
            return metres / float(np.median(1 / disparity))
        if self.kind == "height":
            if shares is None:
                raise UserError("--scale height=... needs the camera: give --intrinsics")
            found = [camera_height(1 / d, shares) for d in disparity[:: max(1, len(disparity) // 20)]]
            known = [value for value in found if value is not None]
            if not known:
                raise UserError("--scale height=...: no ground in the lower half of the frames; use median or baseline")
            return metres / float(np.median(known))
        if ways is None or not len(ways) or float(np.mean(ways)) <= 1e-9:
            raise UserError("--scale baseline=...: the camera stands still, or it is one frame; use median or height")
        return metres / float(np.mean(ways))


def camera_height(depth: np.ndarray, shares: np.ndarray, tries: int = 60) -> float | None:
    """Distance of the camera from the plane that most points of the picture's lower middle lie on; None for no ground.

    Args:
        depth: (h, w).
        shares: intrinsics (4,).
        tries: planes through three points that are tried.
    """
    from selftaught.run.outputs._points import camera_points

    h, w = depth.shape
    points = camera_points(depth, shares).reshape(h, w, 3)[int(0.6 * h) :, int(0.25 * w) : int(0.75 * w)].reshape(-1, 3)
    rng = np.random.default_rng(0)
    best, share = None, 0.0
    for _ in range(tries):
        a, b, c = points[rng.choice(len(points), 3, replace=False)]
        normal = np.cross(b - a, c - a)
        length = float(np.linalg.norm(normal))
        if length < 1e-12 or abs(normal[1]) < 0.7 * length:  # a wall, or no plane at all
            continue
        away = np.abs((points - a) @ (normal / length))
        height = abs(float(a @ (normal / length)))
        inside = float((away < 0.03 * max(height, 1e-9)).mean())
        if inside > share:
            best, share = height, inside
    return best if share > 0.3 else None


def flicker(depth: np.ndarray) -> float:
    """Mean over neighbouring frames of the median |log d_t+1 - log d_t|: 0 for depth that doesn't change in time.

    Args:
        depth: (T, h, w); a video of one frame has 0.
    """
    if len(depth) < 2:
        return 0.0
    step = np.abs(np.diff(np.log(depth), axis=0))
    return float(np.median(step.reshape(len(step), -1), axis=1).mean())
