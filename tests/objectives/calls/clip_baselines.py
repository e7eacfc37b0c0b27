import torch

G = torch.Generator().manual_seed(4)
A, B, C, D, E, F = (torch.randn(6, 4, generator=G) for _ in range(6))
CALLS = {
    "clip_sharded": ((A[:3], B[:3], A, B), {"first": 3}),
    "cl2l": ((A, B, [C, D], [E, F]), {}),
    "barlip_pair": ((A, B), {}),
    "barlip": ((A, B, [C, D], [E, F]), {}),
    "siamlip_distance": ((A, B), {}),
    "siamlip": ((A, B, C, D), {"p_images": [A], "p_texts": [B], "v_images": [C], "v_texts": [D]}),
    "swalip": (([A, B], [C, D]), {"image_keys": [A, B], "text_keys": [C, D]}),
    "swalip_v1": ((A, B), {}),
}
