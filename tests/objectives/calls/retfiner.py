import torch

G = torch.Generator().manual_seed(6)
A, B = (torch.randn(6, 4, generator=G) for _ in range(2))
TOKENS = torch.randint(1, 9, (6, 5), generator=G)
LABELS = torch.where(torch.rand(6, 5, generator=G) < 0.5, TOKENS, -100)
SAME = torch.eye(6, dtype=torch.bool)
CALLS = {
    "mask_tokens": ((TOKENS,), {"mask": 9, "low": 1, "high": 8}),
    "masked_language": ((torch.randn(6, 5, 10, generator=G), LABELS), {}),
    "contrast_texts": ((A, B), {"same": SAME}),
    "negative_weights": ((A @ B.T,), {"same": SAME}),
    "hard_negatives": ((A @ B.T,), {"same": SAME}),
    "text_matching": ((torch.randn(6, 2, generator=G), torch.tensor([1, 0, 1, 0, 0, 1])), {}),
}
