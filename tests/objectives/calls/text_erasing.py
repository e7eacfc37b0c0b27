"""Calls of the losses of text erasing."""

import torch

G = torch.Generator().manual_seed(21)
X, OUT, PICTURE, COARSE = (torch.rand(2, 3, 16, 20, generator=G) for _ in range(4))
M, REAL = ((torch.rand(2, 1, 16, 20, generator=G) > 0.3).float() for _ in range(2))
HALF, QUARTER = torch.rand(2, 3, 8, 10, generator=G), torch.rand(2, 3, 4, 5, generator=G)
MAPS, WANTED = ([torch.rand(2, c, 6, 5, generator=G) for c in (4, 6)] for _ in range(2))
SCORES = [torch.randn(2, 3, generator=G) for _ in range(2)]
LOGS = torch.rand(4, 18, generator=G) - 2
ACTIONS = torch.ones(4, 18, dtype=torch.long)
CALLS = {
    "erasing_composite": ((X, OUT, M), {}),
    "erasing_hole": ((OUT, PICTURE, M), {}),
    "erasing_valid": ((OUT, PICTURE, M, REAL), {}),
    "erasing_multiscale": ((QUARTER, HALF, COARSE, PICTURE, M), {"m_r": REAL}),
    "gram": ((MAPS[0],), {}),
    "erasing_perceptual": ((MAPS, WANTED), {}),
    "erasing_style": ((MAPS, WANTED), {}),
    "text_dice": ((OUT, PICTURE), {}),
    "erasing_mask": ((OUT, M, REAL), {}),
    "erasing_discriminator": ((*SCORES,), {}),
    "erasing_gradient_penalty": ((lambda x, m: (x * m).square().flatten(1).sum(1), PICTURE, OUT, M), {}),
    "erasing_adversarial": ((SCORES[0],), {}),
    "triplet_erasure": ((OUT, X, COARSE), {}),
    "erasing_relevant": ((ACTIONS,), {}),
    "erasing_running_mean": ((torch.tensor(0.5), SCORES[0][0]), {}),
    "erasing_difficulty_reward": ((SCORES[0][0], torch.tensor(0.1)), {}),
    "erasing_realism": ((OUT, M, REAL), {}),
    "erasing_realism_reward": ((SCORES[0][0], torch.tensor(0.1)), {}),
    "erasing_subspaces": ((LOGS, LOGS.square()), {}),
    "erasing_feature_norm": ((LOGS,), {}),
    "erasing_policy": ((LOGS, -LOGS, SCORES[0].flatten()[:4], ACTIONS.bool()), {}),
}
