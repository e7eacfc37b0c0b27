import torch

G = torch.Generator().manual_seed(2)
KEPT, KEPT_TOO = (torch.randn(6, 4, generator=G) for _ in range(2))
GONE, GONE_TOO = (torch.randn(3, 4, generator=G) for _ in range(2))
LABELS, WRONG = torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor([1, 2, 3])
CALLS = {
    "laf_phi": ((torch.rand(5, generator=G),), {}),
    "laf_ue": ((KEPT, KEPT_TOO, GONE, GONE_TOO), {}),
    "laf_ra": ((KEPT, KEPT_TOO, GONE, GONE_TOO), {}),
    "laf_vae": ((KEPT, KEPT_TOO, torch.randn(6, 2, generator=G), torch.randn(6, 2, generator=G)), {}),
    "bad_teacher": ((KEPT, KEPT_TOO, GONE, GONE_TOO), {}),
    "negative_gradient": ((KEPT, LABELS, GONE, WRONG), {}),
    "random_label": ((KEPT, LABELS, GONE, WRONG), {}),
    "random_other_labels": ((LABELS, 4), {}),
}
