"""What losses of depth from video share: structural similarity, photometric error, smoothness.

Depth methods that learn from video all compare a frame with what its neighbours make of it; Godard et al., "Digging
into self-supervised monocular depth estimation" (Monodepth2, ICCV 2019, arXiv 1806.01260), Eqs. 2 to 5.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import in_float32

__all__ = ["ImageStatistics", "edge_smoothness", "photometric_error", "ssim_distance", "ssim_statistics"]

_C1, _C2 = 0.01**2, 0.03**2


class _Box(torch.autograd.Function):
    """Sum over 3 x 3 pixels, the border reflected; its adjoint is the sum with the border folded back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _summed(_summed(x, -2), -1)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return _Adjoint.apply(grads[0])


class _Adjoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _folded(_folded(x, -1), -2)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return _Box.apply(grads[0])


def _with_next(x: Tensor, axis: int) -> Tensor:
    """Sum of each entry and the next one along an axis; the last has none."""
    size = x.shape[axis]
    if torch.compiler.is_compiling():  # which knows no views to write into
        found = x.clone()
        found.narrow(axis, 0, size - 1).add_(x.narrow(axis, 1, size - 1))
        return found
    found = torch.empty_like(x)
    found.narrow(axis, size - 1, 1).copy_(x.narrow(axis, size - 1, 1))
    torch.add(x.narrow(axis, 0, size - 1), x.narrow(axis, 1, size - 1), out=found.narrow(axis, 0, size - 1))
    return found


def _summed(x: Tensor, axis: int) -> Tensor:
    """Sum of each entry and its two neighbours along an axis; beyond the end lies the mirror image."""
    size = x.shape[axis]
    found = _with_next(x, axis)
    found.narrow(axis, 1, size - 1).add_(x.narrow(axis, 0, size - 1))
    found.narrow(axis, 0, 1).add_(x.narrow(axis, 1, 1))
    found.narrow(axis, size - 1, 1).add_(x.narrow(axis, size - 2, 1))
    return found


def _folded(x: Tensor, axis: int) -> Tensor:
    """The transpose of :func:`_summed`: entry j goes to j - 1, j and j + 1, what falls outside to its mirror place."""
    size = x.shape[axis]
    found = _with_next(x, axis)
    found.narrow(axis, 1, size - 1).add_(x.narrow(axis, 0, size - 1))
    found.narrow(axis, 1, 1).add_(x.narrow(axis, 0, 1))
    found.narrow(axis, size - 2, 1).add_(x.narrow(axis, size - 1, 1))
    return found


def _mean(x: Tensor) -> Tensor:
    """Mean over 3 x 3 pixels (N, C, H, W), border reflected."""
    found: Tensor = _Box.apply(x)
    return found / 9


def check_maps(dims: int = 4, **tensors: Tensor) -> None:
    """Refuse what isn't a floating tensor of so many axes, with something in it.

    Raises:
        UserError: it names the argument.
    """
    layouts = {1: "(N,)", 3: "(N, slots, 3)", 4: "(N, C, H, W)", 5: "(F, N, C, H, W)"}
    for name, tensor in tensors.items():
        if tensor.dim() != dims or not tensor.numel():
            raise UserError(f"{name}: shape {tuple(tensor.shape)}; pass {layouts[dims]}, none of them 0")
        if not tensor.is_floating_point():
            raise UserError(f"{name}: {tensor.dtype}; pass floating-point numbers")


class ImageStatistics(NamedTuple):
    """An image with its local means and variances, computed once for all that is compared with it."""

    image: Tensor
    mean: Tensor
    variance: Tensor


@in_float32
def ssim_statistics(image: Tensor) -> ImageStatistics:
    """Means and variances over 3 x 3 pixels of (N, C, H, W), the border reflected.

    Raises:
        UserError: not four axes, or fewer than 2 pixels a side.
    """
    check_maps(image=image)
    if min(image.shape[2:]) < 2:
        raise UserError(f"image: shape {tuple(image.shape)}; pass (N, C, H, W) of 2 pixels a side or more")
    mean = _mean(image)
    return ImageStatistics(image, mean, _mean(image * image) - mean * mean)


@in_float32
def ssim_distance(x: Tensor, y: Tensor | ImageStatistics) -> Tensor:
    """clamp((1 - SSIM) / 2, 0, 1) for each pixel and channel, by 3 x 3 means with a reflected border.

    SSIM = (2 mx my + C1)(2 sxy + C2) / ((mx^2 + my^2 + C1)(sx + sy + C2)), C1 = 0.01^2, C2 = 0.03^2.

    Args:
        x: (N, C, H, W) in [0, 1].
        y: the same shape, or what :func:`ssim_statistics` made of it.

    Returns:
        (N, C, H, W).

    Raises:
        UserError: shapes that differ.
    """
    other = y if isinstance(y, ImageStatistics) else ssim_statistics(y)
    _same(x, other.image, "x", "y")
    if any(part.requires_grad for part in other) or torch.compiler.is_compiling():
        return _distance(x, other)
    check_maps(x=x)
    found: Tensor = _Distance.apply(x, *other)
    return found


def _distance(x: Tensor, other: ImageStatistics) -> Tensor:
    """The formula, operation by operation."""
    mine = ssim_statistics(x)
    both = mine.mean * other.mean
    cross = _mean(x * other.image) - both
    top = (2 * both + _C1) * (2 * cross + _C2)
    bottom = (mine.mean**2 + other.mean**2 + _C1) * (mine.variance + other.variance + _C2)
    return (0.5 - 0.5 * top / bottom).clamp(0, 1)


class _Distance(torch.autograd.Function):
    """The formula with a gradient for x alone, written out: few passes over the pixels, few maps kept.

    With S = A B / (C D), A = 2 mx my + C1, B = 2 sxy + C2, C = mx^2 + my^2 + C1, D = sx + sy + C2 and E the mean:
    dS / dE[xy] = 2 A / (C D), dS / dE[xx] = -S / D, dS / dmx = 2 my (B - A) / (C D) + 2 mx S (1 / D - 1 / C).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, image: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        mine = _boxed(x)
        a = (mine * mean).mul_(2)
        b = _boxed(x * image).mul_(2).sub_(a).add_(_C2)
        a.add_(_C1)
        squared = mine * mine
        d = _boxed(x * x).sub_(squared).add_(variance).add_(_C2)
        c = squared.addcmul_(mean, mean).add_(_C1)
        ctx.save_for_backward(x, image, mean, variance, mine, a, b, c, d)
        return (a * b).div_(c).div_(d).mul_(-0.5).add_(0.5).clamp_(0, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, image, mean, variance, mine, a, b, c, d = ctx.saved_tensors
        if torch.is_grad_enabled():  # a gradient to differentiate again
            found = _distance(x, ImageStatistics(image, mean, variance))
            return *torch.autograd.grad(found, x, grads[0], create_graph=True), None, None, None
        over = (c * d).reciprocal_()
        similarity = a * b * over
        weight = (grads[0] * (similarity.abs() <= 1)).mul_(-1 / 9)  # twice what the half and the mean give
        similarity.mul_(weight)
        over.mul_(weight)
        to_square = similarity / d
        of_mean = (to_square - similarity.div_(c)).mul_(mine).addcmul_(over.mul(mean), b - a)
        found = _unboxed(of_mean)
        found.addcmul_(_unboxed(to_square), x, value=-1).addcmul_(_unboxed(over.mul_(a)), image)
        return found, None, None, None


def _boxed(x: Tensor) -> Tensor:
    return _summed(_summed(x, -2), -1).div_(9)


def _unboxed(x: Tensor) -> Tensor:
    return _folded(_folded(x, -1), -2)


@in_float32
def photometric_error(predicted: Tensor, target: Tensor | ImageStatistics, *, alpha: float = 0.85) -> Tensor:
    """pe = alpha mean_c clamp((1 - SSIM) / 2, 0, 1) + (1 - alpha) mean_c |a - b| (Monodepth2, Eq. 2).

    Args:
        predicted: (N, C, H, W) in [0, 1].
        target: the same shape, or what :func:`ssim_statistics` made of it.
        alpha: share of the structural part (default 0.85); 0 leaves it out.

    Returns:
        (N, 1, H, W).

    Raises:
        UserError: shapes that differ.
    """
    image = target.image if isinstance(target, ImageStatistics) else target
    check_maps(predicted=predicted, target=image)
    _same(predicted, image, "predicted", "target")
    absolute = (predicted - image).abs().mean(1, keepdim=True)
    if alpha == 0:
        return absolute
    return alpha * ssim_distance(predicted, target).mean(1, keepdim=True) + (1 - alpha) * absolute


@in_float32
def edge_smoothness(disparity: Tensor, image: Tensor, *, normalise: bool = True, each: bool = False) -> Tensor:
    """|dx d*| e^-|dx I| + |dy d*| e^-|dy I|, means over pixels (Monodepth2, Eq. 3).

    Args:
        disparity: (N, 1, H, W).
        image: (N, C, H, W) of the same size; its gradients are means over the channels.
        normalise: d* is d over its mean per image plus 1e-7; False takes d itself.
        each: (N,), one value for each image, in place of their mean.

    Raises:
        UserError: shapes that don't fit.
    """
    check_maps(disparity=disparity, image=image)
    if disparity.shape[1] != 1:
        raise UserError(
            f"disparity {tuple(disparity.shape)}, image {tuple(image.shape)}: (N, 1, H, W) and (N, C, H, W)"
        )
    if len(image) != len(disparity) or image.shape[2:] != disparity.shape[2:] or min(image.shape[2:]) < 2:
        raise UserError(f"disparity {tuple(disparity.shape)} and image {tuple(image.shape)}: give both at one size")
    if normalise:
        disparity = disparity / (disparity.mean((2, 3), keepdim=True) + 1e-7)
    along = []
    for axis in (3, 2):
        slope = disparity.diff(dim=axis).abs()
        edges = image.diff(dim=axis).abs().mean(1, keepdim=True)
        along.append((slope * torch.exp(-edges)).mean((1, 2, 3)))
    total = along[0] + along[1]
    return total if each else total.mean()


def _same(x: Tensor, y: Tensor, first: str, second: str) -> None:
    if x.shape != y.shape or x.dim() != 4:
        raise UserError(f"{first} {tuple(x.shape)} and {second} {tuple(y.shape)}: pass two of one shape (N, C, H, W)")
