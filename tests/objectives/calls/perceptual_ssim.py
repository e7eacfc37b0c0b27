"""Calls of the structural similarities."""

import torch

G = torch.Generator().manual_seed(23)
X, Y = (torch.rand(2, 3, 24, 22, generator=G) for _ in range(2))
MEAN, LOG_VARIANCE = (torch.randn(4, 5, generator=G) for _ in range(2))
CALLS = {
    "ssim": ((X, Y), {}),
    "ssim_components": ((X, Y), {}),
    "ms_ssim": ((X, Y), {"scales": 2}),
    "ms_ssim_map": ((X, Y), {"scales": 3}),
    "perceptual_ssim": ((X, Y), {"loss": "mix"}),
    "standard_normal_kl": ((MEAN, LOG_VARIANCE), {}),
    "el_vae": ((torch.tensor(0.3), MEAN, LOG_VARIANCE), {}),
}
WITHOUT_TENSORS = {"ms_ssim_scales", "ms_ssim_weights"}
