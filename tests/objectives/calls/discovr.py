import torch

G = torch.Generator().manual_seed(3)
VIDEO, IMAGE = (torch.randn(2, 8, 5, generator=G) for _ in range(2))
FRAMES = torch.randn(2, 4, 4, 5, generator=G)
PROTOTYPES = torch.randn(3, 5, generator=G)
STUDENT, TEACHER = torch.randn(2, 2, 6, generator=G), torch.randn(2, 6, generator=G)
MASK = torch.tensor([[True, False] * 4, [False, True] * 4])
IMAGE_LOGITS = torch.randn(2, 8, 6, generator=G), torch.randn(8, 6, generator=G)
CALLS = {
    "cluster_distillation": ((VIDEO, IMAGE, PROTOTYPES), {}),
    "sigma": ((VIDEO, IMAGE, PROTOTYPES), {}),
    "paired_tokens": ((FRAMES,), {}),
    "standardised_tokens": ((VIDEO,), {}),
    "masked_distillation": ((STUDENT, TEACHER), {"center": torch.zeros(6)}),
    "discovr_center": ((torch.zeros(6), TEACHER), {}),
    "discovr": ((VIDEO, FRAMES, PROTOTYPES, STUDENT, TEACHER, *IMAGE_LOGITS), {}),
    "masked_prediction": ((VIDEO, IMAGE, MASK), {}),
    "normalised_patches": ((torch.rand(2, 8, 6, generator=G),), {}),
    "videomae": ((torch.rand(2, 8, 6, generator=G), torch.rand(2, 8, 6, generator=G), MASK), {}),
}
WITHOUT_TENSORS = {"discovr_temperature"}
