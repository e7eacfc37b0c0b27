"""Calls of Masked Scene Modeling's functions."""

from __future__ import annotations

import torch

G = torch.Generator().manual_seed(5)
STUDENT, TEACHER = torch.randn(6, 4, generator=G), torch.randn(6, 4, generator=G)
FEATURES = torch.randn(6, 6, generator=G)
PLACES, ENDS = torch.rand(6, 3, generator=G), torch.tensor([2, 6])
CALLS = {
    "masked_scene_targets": ((TEACHER,), {"targets": "centre", "center": torch.zeros(4)}),
    "masked_scene_prototypes": ((STUDENT, TEACHER.softmax(1)), {}),
    "masked_scene_cosine": ((STUDENT, TEACHER), {}),
    "masked_scene_mse": ((STUDENT, TEACHER), {}),
    "masked_scene_contrast": ((STUDENT, TEACHER), {}),
    "masked_scene_input": ((FEATURES, FEATURES + 1), {}),
    "match_voxels": ((PLACES, PLACES + 0.1, 0.5, ENDS, ENDS), {}),
}
WITHOUT_TENSORS = {"teacher_temperature", "masked_scene_modeling", "average_levels"}  # lists of lists
