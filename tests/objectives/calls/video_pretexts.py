import torch
from torch.nn.functional import normalize

G = torch.Generator().manual_seed(6)
Q, K, N, QM, KM, NM = (normalize(torch.randn(4, 6, generator=G), dim=1) for _ in range(6))
QUEUE = normalize(torch.randn(5, 6, generator=G), dim=1)
CLIP, FINE = torch.rand(2, 3, 4, 8, 8, generator=G), torch.rand(2, 3, 8, 8, 8, generator=G)
LOGITS, LABELS = torch.randn(2, 4, generator=G), torch.tensor([3, 1])
FLAGS = torch.ones(2, 8, dtype=torch.bool)
CALLS = {
    "video_rotnet": ((LOGITS, LABELS), {}),
    "rotate_clips": ((CLIP, LABELS), {}),
    "video_rotnet_all": ((CLIP, 3), {}),
    "vcop": ((torch.randn(2, 6, generator=G), LABELS), {}),
    "order_of": ((LABELS, 3), {}),
    "order_index": ((torch.tensor([[2, 0, 1], [0, 1, 2]]),), {}),
    "shuffle_clips": ((torch.rand(2, 3, 5, generator=G), LABELS), {}),
    "motion_mask": ((CLIP,), {"patch": 4}),
    "prp_target": ((CLIP, FINE, torch.tensor([True, False])), {}),
    "prp_reconstruction": ((FINE, FINE + 1, FINE, FLAGS), {}),
    "prp": ((FINE, FINE + 1, LOGITS, LABELS), {"mask": FINE, "flags": FLAGS}),
    "intra_video_mix": ((CLIP, LABELS, torch.tensor([0.1, 0.0])), {}),
    "tdl": ((Q, K, N, QUEUE), {}),
    "tdl_logits": ((Q, K, N, QUEUE), {}),
    "a_vid": ((Q, K, N, QUEUE), {}),
    "relative_speed": ((QM, KM, NM), {}),
    "rspnet": (((Q, K, N), (QM, KM, NM), QUEUE), {}),
    "pretext_distillation": ((Q, K), {}),
    "video_ssl_benchmark": (([Q, K], [N, QM]), {}),
}
