import torch

G = torch.Generator().manual_seed(1)
CLEAN, NOISE, REAL, FAKE = (torch.randn(3, 2, 4, 4, generator=G) for _ in range(4))
T = torch.tensor([0.25, 0.5, 0.75])
YES, NO = torch.randn(3, 2, generator=G), torch.randn(3, 2, generator=G)
CALLS = {
    "noised": ((CLEAN, NOISE, T), {}),
    "clean_from_velocity": ((CLEAN, NOISE, T), {}),
    "guided_velocity": ((CLEAN, NOISE), {"guidance": 2.0}),
    "flow_matching": ((REAL, CLEAN, NOISE), {}),
    "unroll_flow": ((lambda x, t: 0.5 * x, NOISE, T), {}),
    "sample_flow": ((lambda x, t: 0.5 * x, NOISE), {}),
    "judge_loss": ((YES, NO), {"wanted": YES > 0}),
    "judge_vocabulary_loss": ((torch.randn(3, 2, 7, generator=G), torch.zeros(3, 2, dtype=torch.int64)), {}),
    "match_distributions": ((CLEAN, NOISE, REAL, FAKE, T), {}),
    "group_advantage": ((torch.rand(3, 4, generator=G),), {}),
    "gaussian_log_density": ((CLEAN, NOISE, T), {}),
    "policy_gradient": ((torch.rand(3, 4, generator=G), torch.rand(3, 4, generator=G)), {}),
}
