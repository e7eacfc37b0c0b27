"""Calls of SelfDRSC's losses."""

import torch

G = torch.Generator().manual_seed(11)
T2B, B2T, A, B, C, D = (torch.rand(2, 3, 12, 14, generator=G) for _ in range(6))
FRAMES, CLEAN = (torch.rand(2, 3, 3, 12, 14, generator=G) for _ in range(2))
FLOWS = [torch.randn(2, 12, 6, 7, generator=G) for _ in range(4)]
MADE = {"t2b": A, "b2t": B, "t2b mid": C, "b2t mid": D}


def features(x: torch.Tensor) -> torch.Tensor:
    """Something smooth of a picture."""
    return torch.nn.functional.avg_pool2d(x, 2).sin()


CALLS = {
    "feature_distance": ((A, B, features), {}),
    "flow_variation": ((FLOWS[0],), {}),
    "selfdrsc": ((MADE, {"t2b": T2B, "b2t": B2T}, FLOWS, features), {}),
    "selfdrsc_distillation": ((FRAMES, CLEAN, features), {}),
    "selfdrsc_supervised": ((FRAMES, CLEAN, FLOWS, features), {}),
}
