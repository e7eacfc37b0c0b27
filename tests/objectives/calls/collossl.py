import torch

G = torch.Generator().manual_seed(5)
Z, P, N = torch.rand(4, 6, generator=G), torch.rand(1, 4, 6, generator=G), torch.rand(3, 4, 6, generator=G)
X, Y = torch.rand(5, 6, 50, generator=G), torch.rand(5, 6, 50, generator=G)
CALLS = {
    "collossl": ((Z, P, N), {"positive_weights": torch.ones(1), "negative_weights": torch.rand(3, generator=G) + 0.1}),
    "gaussian_kernel": ((X[:, 0], Y[:, 0]), {}),
    "mmd": ((X[:, 0], Y[:, 0]), {}),
    "signal_norm": ((X,), {}),
    "device_distance": ((X, Y), {}),
    "select_devices": ((torch.rand(3, generator=G) + 0.1,), {}),
    "pair_weights": ((torch.rand(3, generator=G) + 0.1, [0], [0, 1, 2]), {}),
}
