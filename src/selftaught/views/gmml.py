"""GMML: groups of connected blocks of an image are corrupted (Atito et al., arXiv 2104.03602 and 2205.14986).

    r = uniform(min(0.5, m), m)
    while less than r of the image is hidden: a block at an even-drawn place, each side even-drawn from a to 0.3 of the
    image's, place and sides in multiples of a

Works on normalised tensors, where zeros are the mean colour. Chance comes from one NumPy generator.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from selftaught.errors import UserError

__all__ = ["GMML_KINDS", "gmml", "gmml_batch", "gmml_blocks", "gmml_mix"]

GMML_KINDS = ("zeros", "noise", "shuffle", "other")
"""What a block becomes: the mean colour, normal noise, a block from elsewhere in the image, or the same place of
another image."""

_LARGEST = 0.3
_AT_ONCE = 32
Block = tuple[int, int, int, int]


def gmml_blocks(
    height: int, width: int, *, maximum: float = 0.5, align: int = 1, rng: np.random.Generator | None = None
) -> tuple[list[Block], np.ndarray]:
    """Blocks (top, left, height, width) in the order they were drawn, and the mask (height, width) of them all.

    Args:
        height: H of the image.
        width: W.
        maximum: m, the largest share to hide; up to 0.5 it is the share itself.
        align: a: places and sides are multiples of it (1: any pixel, the patch: whole patches).
        rng: source of chance; None draws a seed from torch's.

    Raises:
        UserError: a share outside [0, 1), an image too small for the blocks.
    """
    if not 0 <= maximum < 1:
        raise UserError(f"maximum={maximum}: the share to corrupt must be in [0, 1)")
    limits = [int(_LARGEST * side) for side in (height, width)]
    if align < 1 or min(limits) <= align or min(height, width) <= align:
        raise UserError(
            f"blocks aligned to {align} pixels don't fit {height}x{width}: 0.3 of a side must be more than that; use a "
            "smaller align or larger images"
        )
    rng = _rng() if rng is None else rng
    share = rng.uniform(min(0.5, maximum), maximum)
    mask, blocks = np.zeros((height, width), dtype=bool), []
    wanted, hidden = share * mask.size, 0
    while hidden < wanted:
        for top, left, h, w in _drawn(height, width, limits, align, rng):
            mask[top : top + h, left : left + w] = True
            blocks.append((top, left, h, w))
            hidden = int(np.count_nonzero(mask))
            if hidden >= wanted:
                break
    return blocks, mask


def _drawn(height: int, width: int, limits: list[int], align: int, rng: np.random.Generator) -> list[Block]:
    """Some blocks at once (drawing them one by one takes most of the time); those rounded to nothing are left out."""
    found = []
    for side, limit in zip((height, width), limits, strict=True):
        start = align * (rng.integers(0, side - align, _AT_ONCE) // align)
        length = np.minimum(rng.integers(align, limit, _AT_ONCE), side - start)
        found.append((start, np.minimum(align * np.rint(length / align).astype(np.int64), side - start)))
    (top, h), (left, w) = found
    return [block for block in zip(*(n.tolist() for n in (top, left, h, w)), strict=True) if block[2] and block[3]]


def gmml(
    image: Tensor,
    *,
    maximum: float = 0.5,
    align: int = 1,
    kind: str = "zeros",
    other: Tensor | None = None,
    rng: np.random.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Corrupt one image.

    Args:
        image: (C, H, W), normalised.
        maximum: m; see `gmml_blocks`.
        align: a.
        kind: one of `GMML_KINDS`.
        other: (C, H, W), for the kind "other".
        rng: source of chance; None draws a seed from torch's.

    Returns:
        The corrupted image, equal to the clean one outside the mask, and the mask (C, H, W), 1 where corrupted, equal
        over channels.

    Raises:
        UserError: another shape or kind, "other" without one.
    """
    if image.dim() != 3 or not image.is_floating_point():
        raise UserError(
            f"an image to corrupt needs the shape (C, H, W) and floating-point values, got {tuple(image.shape)}"
        )
    if kind not in GMML_KINDS:
        raise UserError(f"kind={kind}: choose {', '.join(GMML_KINDS)}")
    if kind == "other" and (other is None or other.shape != image.shape):
        raise UserError("kind=other needs another image of the same shape")
    rng = _rng() if rng is None else rng
    blocks, hidden = gmml_blocks(*image.shape[1:], maximum=maximum, align=align, rng=rng)
    mask = torch.from_numpy(hidden).to(image.device)
    if kind == "shuffle":
        found = _from_elsewhere(image, blocks, rng)
    else:
        fill = torch.zeros_like(image) if kind == "zeros" else other
        if kind == "noise":
            noise = rng.standard_normal(tuple(image.shape), dtype=np.float32)
            fill = torch.from_numpy(noise).to(image)
        assert fill is not None
        found = torch.where(mask, fill, image)
    return found, mask.to(image.dtype).expand_as(image).clone()


def _from_elsewhere(image: Tensor, blocks: list[Block], rng: np.random.Generator) -> Tensor:
    """Every block replaced by one of its size from an even-drawn place of the clean image."""
    found, (height, width) = image.clone(), image.shape[1:]
    for top, left, h, w in blocks:
        y, x = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
        found[:, top : top + h, left : left + w] = image[:, y : y + h, x : x + w]
    return found


def gmml_batch(
    images: Tensor,
    *,
    maximum: float = 0.5,
    align: int = 1,
    kinds: Sequence[str] = ("zeros",),
    rng: np.random.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Corrupt a batch (N, C, H, W), each image with blocks of its own and a kind drawn from ``kinds``: stage 1.

    Returns:
        Corrupted images and masks, (N, C, H, W) each.

    Raises:
        UserError: no kind, or an unknown one.
    """
    if not kinds:
        raise UserError(f"kinds: name at least one of {', '.join(GMML_KINDS)}")
    rng = _rng() if rng is None else rng
    found = []
    for image in images:
        kind = str(kinds[int(rng.integers(0, len(kinds)))])
        other = images[int(rng.integers(0, len(images)))] if kind == "other" else None
        found.append(gmml(image, maximum=maximum, align=align, kind=kind, other=other, rng=rng))
    return torch.stack([image for image, _ in found]), torch.stack([mask for _, mask in found])


def gmml_mix(
    clean: Tensor,
    corrupted: Tensor,
    masks: Tensor,
    *,
    probability: float = 0.5,
    maximum: float = 0.3,
    align: int = 1,
    rng: np.random.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Stage 2: some images' corruption is thrown away and made anew from blocks at the same place of another image.

    Args:
        clean: (N, C, H, W).
        corrupted: (N, C, H, W) of stage 1.
        masks: (N, C, H, W) of stage 1.
        probability: that an image's corruption is made anew.
        maximum: m of the new one.
        align: a.
        rng: source of chance; None draws a seed from torch's.

    Returns:
        Corrupted images and masks; the other image is drawn from the whole batch, possibly the image itself.
    """
    rng = _rng() if rng is None else rng
    images, hidden = corrupted.clone(), masks.clone()
    for i in np.flatnonzero(rng.random(len(clean)) < probability):
        other = clean[int(rng.integers(0, len(clean)))]
        images[i], hidden[i] = gmml(clean[i], maximum=maximum, align=align, kind="other", other=other, rng=rng)
    return images, hidden


def _rng() -> np.random.Generator:
    """Seeded from torch's own stream, which a checkpoint keeps."""
    return np.random.default_rng(int(torch.randint(2**62, ())))
