"""Calls of RRFormer's losses."""

import torch

G = torch.Generator().manual_seed(8)
MADE, TRUE = (torch.rand(2, 3, 6, 7, generator=G) for _ in range(2))
R, F = torch.randn(4, generator=G), torch.randn(4, generator=G)
MAPS, OTHERS = ([torch.rand(2, 4, 3, 3, generator=G), torch.rand(2, 6, 2, 2, generator=G)] for _ in range(2))
CALLS = {
    "rrformer": ((MADE, TRUE), {"output_maps": MAPS, "target_maps": OTHERS, "real": R, "fake": F}),
    "rrformer_pixel": ((MADE, TRUE), {}),
    "rrformer_gradient": ((MADE, TRUE), {}),
    "rrformer_feature": ((MAPS, OTHERS), {}),
    "rrformer_discriminator": ((R, F), {}),
    "rrformer_adversarial": ((R, F), {}),
}
