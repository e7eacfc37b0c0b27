import torch

G = torch.Generator().manual_seed(3)
IMAGES = torch.rand(2, 3, 6, 7, generator=G)
CLEAR, ALTERED = (torch.rand(2, 2, 3, 6, 7, generator=G) for _ in range(2))
X, Y = (torch.rand(2, 1, 6, 7, generator=G) for _ in range(2))
MASK = torch.rand(2, 1, 6, 7, generator=G) > 0.5
ERRORS, OTHERS = (torch.rand(2, 2, 6, 7, generator=G) for _ in range(2))
ANGLES, SHIFTS = (torch.rand(2, 2, 3, generator=G) for _ in range(2))
CALLS = {
    "bidirectional_depth_loss": ((X, Y, MASK, ~MASK), {}),
    "log_difference": ((X, Y, MASK), {}),
    "pseudo_masks": ((ERRORS, OTHERS, ERRORS.flip(0)), {}),
    "pseudo_pose_loss": ((ANGLES, SHIFTS, SHIFTS, ANGLES), {}),
    "robust_depth": (
        ({0: X}, {0: Y}, {0: CLEAR}, {0: ALTERED}, IMAGES, CLEAR.flip(0)),
        {"noise": ERRORS, "skipped": torch.tensor([False, True])},
    ),
}
