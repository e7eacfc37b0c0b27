"""Semantic segmentation without training: a token takes the classes of the labelled tokens that look most like it.

    p(c | t) = sum_j w_j m_j(c) / sum_j w_j,     w_j = exp(cos(t, t_j) / tau),  j among the k nearest

m_j(c) is the share of class c in the pixels of a training image that token j stands for. The shares of a test image's
tokens are enlarged bilinearly; the largest names a pixel's class. It is what k-NN is to a linear probe, for masks.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.errors import UserError
from selftaught.evaluation._protocol import protocol
from selftaught.evaluation.result import Result
from selftaught.evaluation.segmentation import IGNORE, as_scenes, class_count, confusion_of, dense_numbers, feature_map

__all__ = ["patch_shares", "segmentation_knn"]


@protocol("segmentation-knn", "a class for every pixel by the nearest labelled tokens: mean IoU", inputs="dense")
def segmentation_knn(
    encoder: nn.Module,
    train_images: Any,
    train_masks: Any,
    test_images: Any,
    test_masks: Any,
    *,
    classes: int | None = None,
    k: int = 20,
    tau: float = 0.07,
    most: int = 20_000,
    batch: int = 16,
    ignore: int = IGNORE,
    device: str | torch.device | None = None,
) -> Result:
    """Masks of test images by the nearest labelled tokens of training images, by cosine; nothing is trained.

    Args:
        encoder: has ``maps``: (n, C, H, W) -> (n, F, h, w), or is a module that gives such a map itself.
        train_images: (n, C, H, W) float, normalised as the encoder expects.
        train_masks: (n, H, W) whole numbers, the class of each pixel, ``ignore`` where there is none.
        test_images: as ``train_images``.
        test_masks: as ``train_masks``.
        classes: number K of classes; None: as many as the masks name.
        k: neighbours that vote (20).
        tau: temperature of their weights (0.07).
        most: labelled tokens that are searched, evenly over all.
        batch: images at a time.
        ignore: mask value of pixels that count for nothing.
        device: where to search; where the encoder is if not given.

    Returns:
        ``Result`` "segmentation-knn": ``miou``, ``pixel_accuracy``, ``iou K`` as ``segmentation`` gives them, intervals
        over test images. Figure ``confusion`` (rows true).

    Raises:
        UserError: as `segmentation`; fewer labelled tokens than k.
    """
    x, y = as_scenes(train_images, train_masks, ignore, "train")
    test_x, test_y = as_scenes(test_images, test_masks, ignore, "test")
    count = class_count((y, test_y), classes, ignore)
    if k < 1 or batch < 1 or most < k or not tau > 0:
        raise UserError(f"segmentation-knn: k={k} and batch={batch} from 1, most={most} from k, tau={tau} above 0")
    own = next(encoder.parameters(), torch.empty(0)).device
    where = own if device is None else torch.device(device)
    mode = encoder.training
    encoder.eval()
    try:
        tokens, shares = _gallery(encoder, x, y, count, batch, ignore, where)
        if len(tokens) < k:
            raise UserError(f"segmentation-knn: k={k} of {len(tokens)} labelled tokens; lower it, or give more images")
        rows = torch.linspace(0, len(tokens) - 1, min(most, len(tokens))).round().long()
        tokens, shares = tokens[rows].to(where), shares[rows].to(where)
        found = []
        for images, masks in zip(test_x.split(batch), test_y.split(batch), strict=True):
            voted = torch.stack([_vote(one, tokens, shares, k, tau) for one in feature_map(encoder, images.to(where))])
            enlarged = F.interpolate(voted, size=masks.shape[1:], mode="bilinear", align_corners=False)
            found += [confusion_of(m, g, count, ignore) for m, g in zip(masks, enlarged.argmax(1).cpu(), strict=True)]
    finally:
        encoder.train(mode)
    confusions = torch.stack(found).numpy()
    return Result("segmentation-knn", dense_numbers(confusions), {"confusion": {"matrix": confusions.sum(0)}})


def patch_shares(masks: Tensor, grid: tuple[int, int], classes: int, ignore: int = IGNORE) -> Tensor:
    """Share of each class in the cells of a grid over masks; pixels of no class are left out.

    Args:
        masks: (n, H, W) int64.
        grid: rows and columns.
        classes: K.
        ignore: value of pixels of no class.

    Returns:
        (n, rows, columns, K) float32 that sum to 1, or to 0 where no pixel of the cell has a class.
    """
    known = masks != ignore
    planes = F.one_hot(masks.where(known, torch.zeros_like(masks)), classes) * known[..., None]
    cells = F.adaptive_avg_pool2d(planes.permute(0, 3, 1, 2).float(), grid).permute(0, 2, 3, 1)
    return cells / cells.sum(3, keepdim=True).clamp(min=1e-12)


@torch.no_grad()
def _gallery(
    encoder: nn.Module, x: Tensor, y: Tensor, classes: int, batch: int, ignore: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """(M, F) unit tokens with a labelled pixel, and (M, K) shares of classes."""
    tokens, shares = [], []
    for images, masks in zip(x.split(batch), y.split(batch), strict=True):
        maps = feature_map(encoder, images.to(device))
        of_cells = patch_shares(masks, (maps.shape[2], maps.shape[3]), classes, ignore).flatten(0, 2)
        labelled = of_cells.sum(1) > 0
        tokens.append(F.normalize(maps.permute(0, 2, 3, 1).flatten(0, 2), dim=1).cpu()[labelled])
        shares.append(of_cells[labelled])
    return torch.cat(tokens), torch.cat(shares)


def _vote(one: Tensor, tokens: Tensor, shares: Tensor, k: int, tau: float) -> Tensor:
    """(K, h, w) shares that the nearest tokens give to a map (F, h, w)."""
    cosine = F.normalize(one.flatten(1).T, dim=1) @ tokens.T
    near = cosine.topk(k, dim=1)
    voted = (torch.softmax(near.values / tau, 1)[:, :, None] * shares[near.indices]).sum(1)
    return voted.T.unflatten(1, one.shape[1:])
