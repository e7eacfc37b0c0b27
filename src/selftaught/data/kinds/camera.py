"""Cameras: how a point in space comes onto the pixels of an image."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from selftaught.data.kinds._kind import Kind
from selftaught.errors import SampleError

__all__ = ["Camera", "CameraKind"]


class Camera(NamedTuple):
    """A pinhole camera.

    Attributes:
        intrinsics: (3, 3), pixels of the image as the source reads it at full size.
        pose: (4, 4), camera to world: a point p of the camera's axes (x right, y down, z ahead) lies at pose @ (p, 1).
    """

    intrinsics: Any
    pose: Any


class CameraKind(Kind):
    """A `Camera` of float32 arrays; a batch is a `Camera` of tensors (N, 3, 3) and (N, 4, 4)."""

    name, plural, description = "camera", "cameras", "a camera"
    layout, batched = "intrinsics (3, 3), pose (4, 4)", "intrinsics (N, 3, 3), pose (N, 4, 4)"

    def check(self, sample: Any, name: str) -> None:
        """The two matrices, finite; the last row of the pose is 0 0 0 1."""
        if not isinstance(sample, Camera):
            raise SampleError(name, f"{type(sample).__name__} where a camera is a Camera(intrinsics, pose)")
        for what, matrix, n in (("intrinsics", sample.intrinsics, 3), ("pose", sample.pose, 4)):
            if np.shape(matrix) != (n, n) or not np.isfinite(matrix).all():
                raise SampleError(name, f"{what} must be {n}x{n} finite numbers")
        if not np.allclose(sample.pose[3], (0, 0, 0, 1)):
            raise SampleError(name, "the last row of the pose is not 0 0 0 1")

    def stack(self, samples: list[Camera]) -> Camera:
        """Cameras as one `Camera` of float32 tensors."""
        import torch

        parts = [np.stack([np.asarray(s[k], dtype=np.float32) for s in samples]) for k in range(2)]
        return Camera(*map(torch.from_numpy, parts))

    def sides(self, sample: Any) -> tuple[int, ...]:
        """None: a camera has no size."""
        return ()
