import torch

G = torch.Generator().manual_seed(6)
NEW, OLD = (torch.randn(3, 4, 5, generator=G) for _ in range(2))
THETA, STAR, OMEGA = (torch.rand(4, 3, generator=G) for _ in range(3))
CALLS = {
    "mas_output": ((NEW,), {}),
    "mas_merge": (([OMEGA], [STAR]), {}),
    "mas_penalty": (([THETA], [STAR], [OMEGA]), {}),
    "lwf": ((NEW, OLD), {}),
}
