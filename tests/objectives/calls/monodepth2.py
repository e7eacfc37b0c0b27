import torch

G = torch.Generator().manual_seed(2)
IMAGES, OTHERS = (torch.rand(2, 3, 6, 7, generator=G) for _ in range(2))
FRAMES = torch.rand(2, 2, 3, 6, 7, generator=G)
DISPARITY = torch.rand(2, 1, 6, 7, generator=G)
ERRORS = torch.rand(2, 2, 6, 7, generator=G)
CALLS = {
    "automask_noise": ((ERRORS,), {}),
    "edge_smoothness": ((DISPARITY, IMAGES), {}),
    "minimum_reprojection": ((ERRORS, ERRORS.flip(0)), {}),
    "monodepth2": (({0: DISPARITY}, {0: FRAMES}, IMAGES, FRAMES.flip(0)), {"noise": ERRORS}),
    "photometric_error": ((IMAGES, OTHERS), {}),
    "pyramid_smoothness": (({0: DISPARITY}, IMAGES), {}),
    "reprojection_errors": ((FRAMES, IMAGES), {}),
    "ssim_distance": ((IMAGES, OTHERS), {}),
    "ssim_statistics": ((IMAGES,), {}),
}
