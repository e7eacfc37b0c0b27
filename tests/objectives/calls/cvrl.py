import torch

G = torch.Generator().manual_seed(5)
A, B = (torch.randn(4, 6, generator=G) for _ in range(2))
CALLS = {"cvrl": ((A, B), {})}
WITHOUT_TENSORS = {"cvrl_weight_decay"}
