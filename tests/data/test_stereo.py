"""The real stereo pair: its depth, its camera and the warp say the same."""

from __future__ import annotations

import numpy as np
import torch

from selftaught.data import open_source
from selftaught.data.builtin.stereo import BASELINE
from selftaught.networks.projection import intrinsics_matrix, warp
from selftaught.objectives.monodepth2 import reprojection_errors


def test_the_right_picture_warped_by_measured_depth_is_the_left_one() -> None:
    source = open_source("stereo", split="test")
    sample = source.sample(0)
    assert sample["clip"].shape == (2, 500, 741, 3)
    depth = sample["depth"][1, :, :, 0]
    known = depth > 0
    assert 2.0 < depth[known].min() < 2.2
    assert 4.9 < depth[known].max() < 5.1
    assert known.mean() > 0.9
    assert not sample["depth"][0].any()
    right, left = torch.from_numpy(sample["clip"]).permute(0, 3, 1, 2)[:, None].float() / 255
    camera = intrinsics_matrix(torch.from_numpy(sample["intrinsics"])[None], 500, 741)
    to_right = torch.eye(4)[None].clone()
    to_right[0, 0, 3] = -BASELINE
    inside = known & (np.arange(741) > 110)  # further left the right camera doesn't see

    def error(depth: np.ndarray, way: torch.Tensor = to_right) -> float:
        filled = torch.from_numpy(np.where(known, depth, 3.0).astype(np.float32))[None, None]
        found = reprojection_errors(warp(right, filled, camera, way)[:, None], left)
        return float(found.flatten()[torch.from_numpy(inside).flatten()].mean())

    true = error(depth)
    wrong = {f"{factor}": error(depth * np.float32(factor)) for factor in (0.95, 1.05)}
    wrong |= {"flat": error(np.full_like(depth, np.median(depth[known])))}
    wrong["the other way"] = error(depth, to_right.inverse())
    assert true < 0.8 * min(wrong.values()), (true, wrong)
