import numpy as np
import torch

G = torch.Generator().manual_seed(3)


def logits(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=G)


ATTENTION = torch.rand(3, 12, generator=G)
ANCHORS = torch.tensor([[0, 5], [3, 11], [6, 2]])
MASK = torch.zeros(2, 3, 12, dtype=torch.bool)
MASK[:, :, ::3] = True
CALLS = {
    "sample_anchors": ((ATTENTION, 2), {}),
    "region_windows": ((ANCHORS, np.array([3, 4])), {}),
    "region_means": ((logits(3, 12, 5), torch.rand(3, 2, 12, generator=G)), {}),
    "counterparts": ((logits(3, 2, 5), logits(3, 12, 5)), {}),
    "glare_regional": (
        (logits(2, 3, 4, 7), logits(2, 3, 4, 7)),
        {"center": logits(7), "weight": torch.rand(2, 3, 4, generator=G)},
    ),
    "glare": (
        (
            logits(2, 3, 7), logits(2, 3, 7), logits(2, 3, 12, 7), logits(2, 3, 12, 7), MASK, logits(2, 3, 4, 7),
            logits(2, 3, 4, 7),
        ),
        {"centers": [logits(7), logits(7), logits(7)]},
    ),
}  # fmt: skip
