import numpy as np
import torch
import torch.nn.functional as F

G = torch.Generator().manual_seed(4)


def rand(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=G)


TOKENS, OTHERS, V = rand(5, 6, 4), rand(5, 6, 4), F.normalize(rand(4), dim=0)
WEIGHTS = torch.rand(5, generator=G)
LEVEL = torch.tensor([0, 100, 200, 300, 400])
CALLS = {
    "foreground_direction": ((TOKENS, np.array([2, 3])), {}),
    "foreground_threshold": ((TOKENS, V), {}),
    "foreground_ratio": ((TOKENS, V, 0.1), {}),
    "noise_level": ((torch.rand(5, generator=G),), {}),
    "perturb_embedding": ((rand(5, 4), LEVEL), {"mean": rand(4), "std": rand(4).abs() + 0.1, "noise": rand(5, 4)}),
    "foreground_maps": ((TOKENS, V), {}),
    "genview_quality": ((TOKENS, OTHERS, V), {}),
    "genview_weights": ((rand(5),), {}),
    "genview": ((rand(5), WEIGHTS), {}),
    "genview_moco_v3": ((rand(5, 4), rand(5, 4), rand(5, 4), rand(5, 4), WEIGHTS), {}),
    "genview_moco_v2": ((*(F.normalize(rand(n, 4), dim=1) for n in (5, 5, 7)), WEIGHTS), {}),
    "genview_simclr": ((rand(5, 4), rand(5, 4), WEIGHTS), {}),
    "genview_swav": (
        (rand(5, 3), rand(5, 3), rand(5, 3)),
        {"codes": torch.rand(2, 5, 3, generator=G), "weights": WEIGHTS},
    ),
    "genview_simsiam": ((rand(5, 4), rand(5, 4), rand(5, 4), rand(5, 4), WEIGHTS), {}),
}
WITHOUT_TENSORS = {"cosine_alphas"}
