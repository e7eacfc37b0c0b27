"""Points in space out of a depth map, and the file that holds them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

__all__ = ["camera_points", "write_ply"]


def camera_points(depth: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Points (H W, 3) float32 in the camera's axes (x right, y down, z ahead) of a depth map.

    Args:
        depth: (H, W).
        shares: intrinsics (4,): fx / W, fy / H, cx / W, cy / H.
    """
    height, width = depth.shape
    fx, fy, cx, cy = np.asarray(shares, dtype=np.float64) * (width, height, width, height)
    v, u = np.mgrid[:height, :width]
    points = np.stack(((u - cx) / fx * depth, (v - cy) / fy * depth, depth), -1)
    return points.reshape(-1, 3).astype(np.float32)


def write_ply(path: Path, points: np.ndarray, colours: np.ndarray) -> None:
    """A binary .ply of points (n, 3) with colours (n, 1 or 3) uint8."""
    rgb = np.repeat(colours, 3, axis=1) if colours.shape[1] == 1 else colours[:, :3]
    rows = np.empty(len(points), dtype=[("xyz", "<f4", 3), ("rgb", "u1", 3)])
    rows["xyz"], rows["rgb"] = points, rgb
    head = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
    head += [f"property float {axis}" for axis in "xyz"] + [f"property uchar {c}" for c in ("red", "green", "blue")]
    path.write_bytes("\n".join([*head, "end_header\n"]).encode() + rows.tobytes())
