"""Calls of IBCLN's loss."""

import torch

G = torch.Generator().manual_seed(9)
FIRST, SECOND, OTHER, LAST, TRUE, SEEN = (torch.rand(2, 3, 6, 7, generator=G) for _ in range(6))
CALLS = {
    "ibcln": (([FIRST, SECOND], [OTHER, LAST], TRUE, SEEN), {"alpha": torch.tensor([0.8, 0.9])}),
    "ibcln_adversarial": ((FIRST[:, :1],), {}),
    "ibcln_discriminator": ((FIRST[:, :1], SECOND[:, :1]), {}),
}
