import torch

G = torch.Generator().manual_seed(6)
IMAGES = torch.rand(2, 3, 8, 8, generator=G)
PIXELS = torch.rand(2, 8, 8, generator=G) > 0.5
MASK = torch.tensor([[True, False, True, False], [False, True, True, False]])
CLS, WHOLE = torch.randn(3, 2, 5, generator=G), torch.randn(2, 2, 5, generator=G)
PATCHES, TARGETS = (torch.randn(2, 2, 4, 5, generator=G) for _ in range(2))
HIDDEN = torch.stack([MASK, ~MASK])
CENTER = torch.randn(5, generator=G)
CALLS = {
    "simmim": ((IMAGES, torch.rand(2, 3, 8, 8, generator=G), PIXELS), {}),
    "beit": ((torch.randn(2, 4, 6, generator=G), torch.randint(6, (2, 4), generator=G), MASK), {}),
    "hog": ((IMAGES,), {"cell": 2, "window": 4}),
    "hog_targets": ((IMAGES, 4), {"cell": 2, "window": 4}),
    "maskfeat": ((torch.randn(2, 4, 6, generator=G), torch.randn(2, 4, 6, generator=G), MASK), {}),
    "ibot": ((CLS, WHOLE, PATCHES, TARGETS, HIDDEN), {"center": CENTER, "patch_center": CENTER}),
    "ibot_patches": ((PATCHES, TARGETS, HIDDEN), {"center": CENTER}),
    "ibot_center": ((CENTER, TARGETS), {}),
    "msn": ((CLS, WHOLE[0], torch.randn(7, 5, generator=G)), {}),
}
