import torch

G = torch.Generator().manual_seed(3)
LOSSES, LOGITS = torch.rand(3, 6, generator=G), torch.randn(3, 6, 4, generator=G)
LABELS, ROWS = torch.tensor([0, 1, 2, 3, 0, 1]), torch.randn(6, 5, generator=G)
PROBABILITIES = LOGITS.softmax(2)
CALLS = {
    "majority_agreement": ((PROBABILITIES, LABELS), {}),
    "dropout_statistics": ((LOSSES, PROBABILITIES, LABELS), {}),
    "storm_features": ((LOSSES, PROBABILITIES, LABELS), {}),
    "normal_kl": ((LOSSES[0], LOSSES[1], LOSSES[2], LOSSES[0]), {}),
    "overlap_coefficient": ((LOSSES[0], LOSSES[1], LOSSES[2], LOSSES[0]), {}),
    "meta_loss_rescaling": ((LOSSES[0], LOSSES[1]), {}),
    "binary_weights": ((LOSSES[0],), {}),
    "linear_gradients": ((ROWS, LOGITS[0], LABELS), {}),
    "agra_similarity": ((ROWS, ROWS), {}),
    "agra_keep": ((ROWS, ROWS), {}),
}
WITHOUT_TENSORS = {"feature_count"}
