"""Space-filling curves: whole-numbered places in space as one number, so that neighbours stay together in a row.

Z-order interleaves the bits of x, y and z. Hilbert's curve, by Skilling's transform (2004), takes steps of length 1.
The transposed curves swap x and y. A code holds ``depth`` bits per axis, and the number of the scene above them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from selftaught.errors import UserError

__all__ = ["CURVES", "curve_code", "hilbert_code", "z_order_code"]

CURVES = ("z", "z-trans", "hilbert", "hilbert-trans")
"""The four curves that :func:`curve_code` knows."""


def z_order_code(place: Tensor, depth: int = 16) -> Tensor:
    """Bits of x, y, z interleaved, x highest in each triple.

    Args:
        place: (M, 3) int64 in 0 .. 2^depth - 1.
        depth: bits per axis, at most 20.

    Returns:
        (M,) int64 in 0 .. 8^depth - 1.

    Raises:
        UserError: places outside that range.
    """
    return _interleaved(_checked(place, depth), depth)


def hilbert_code(place: Tensor, depth: int = 16) -> Tensor:
    """The place's number along Hilbert's curve; arguments and errors as :func:`z_order_code`.

    Skilling's transform: from the highest bit down, where axis i has the bit, the lower bits of axis 0 are inverted,
    and where it has not, they are exchanged with those of axis i. The bits, interleaved, are the number in Gray code.
    """
    axes = list(_checked(place, depth).unbind(1))
    for bit in range(depth - 1, 0, -1):
        below = (1 << bit) - 1
        for i in range(3):
            has = (axes[i] >> bit & 1).bool()
            differ = (axes[0] ^ axes[i]) & below
            first = torch.where(has, axes[0] ^ below, axes[0] ^ differ)
            if i:
                axes[i] = torch.where(has, axes[i], axes[i] ^ differ)
            axes[0] = first
    code = _interleaved(torch.stack(axes, 1), depth)
    shift = 1
    while shift < 3 * depth:  # Gray code to number: every bit is the sum of those above it
        code = code ^ (code >> shift)
        shift *= 2
    return code


def curve_code(place: Tensor, scene: Tensor | None = None, curve: str = "z", depth: int = 16) -> Tensor:
    """The place's number along a curve, scenes one after the other.

    Args:
        place: (M, 3) int64 in 0 .. 2^depth - 1.
        scene: (M,) int64, the number of each place's scene, written above bit 3 depth; None: one scene.
        curve: one of :data:`CURVES`.
        depth: bits per axis.

    Returns:
        (M,) int64.

    Raises:
        UserError: no such curve; negative places or too large ones; too many scenes.
    """
    if curve not in CURVES:
        raise UserError(f"no curve {curve!r}; there are {', '.join(CURVES)}")
    turned = place[:, [1, 0, 2]] if curve.endswith("-trans") else place
    code = (hilbert_code if curve.startswith("hilbert") else z_order_code)(turned, depth)
    if scene is None:
        return code
    if len(scene) and (int(scene.min()) < 0 or int(scene.max()) >= 1 << (63 - 3 * depth)):
        raise UserError(f"scenes {int(scene.min())} to {int(scene.max())} don't fit above {3 * depth} bits")
    return scene << (3 * depth) | code


def _interleaved(place: Tensor, depth: int) -> Tensor:
    code = torch.zeros_like(place[:, 0])
    for bit in range(depth):
        for axis in range(3):
            code = code | (place[:, axis] >> bit & 1) << (3 * bit + 2 - axis)
    return code


def _checked(place: Tensor, depth: int) -> Tensor:
    if place.dim() != 2 or place.shape[1] != 3 or place.is_floating_point():
        raise UserError(f"places are whole numbers (M, 3), got {tuple(place.shape)} {place.dtype}")
    if not 1 <= depth <= 20:
        raise UserError(f"depth={depth}: from 1 to 20 bits per axis")
    if len(place) and (int(place.min()) < 0 or int(place.max()) >= 1 << depth):
        low, high = int(place.min()), int(place.max())
        raise UserError(f"places {low} to {high} don't lie in 0 .. {(1 << depth) - 1}; use larger voxels")
    return place.long()
