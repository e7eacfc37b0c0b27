"""Losses of networks with several outputs (Liu et al., 2022, arXiv 2208.13029): only the best head of an image learns.

y[n, h] is the image of head h, x[n] the sharp one. Heads compete per image, over all its pixels, and per stage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_choice, check_floats, in_float32

__all__ = [
    "best_head",
    "charbonnier",
    "charbonnier_edge",
    "head_distances",
    "laplacian",
    "multi_head",
    "multi_head_l1",
    "multi_head_mse",
    "multi_head_psnr",
    "multi_output_deblur",
    "rgb_to_y",
    "win_rates",
]

_LUMA = (65.481, 128.553, 24.966)
_TAPS = (0.05, 0.25, 0.4, 0.25, 0.05)
Distance = Literal["mse", "l1", "charbonnier_edge"]
Select = Literal["image", "pixel"]
Loss = Literal["psnr", "mse", "l1", "charbonnier_edge"]


def rgb_to_y(x: Tensor) -> Tensor:
    """Luma (..., 1, H, W) of RGB in [0, 1]: (65.481 R + 128.553 G + 24.966 B + 16) / 255.

    Raises:
        UserError: (a ``ValueError``) other than three channels.
    """
    check_floats(x=x)
    if x.ndim < 3 or x.shape[-3] != 3:
        raise UserError(f"RGB images are (..., 3, H, W), got {tuple(x.shape)}")
    return ((x * x.new_tensor(_LUMA).view(3, 1, 1)).sum(-3, keepdim=True) + 16) / 255


@in_float32
def laplacian(x: Tensor) -> Tensor:
    """What a smooth pyramid loses of an image: L(x) = x - G(up(down(G x))).

    G is the outer product of the taps .05, .25, .4, .25, .05 with the border repeated; down and up keep every second
    pixel, put zeros between and multiply by 4.

    Args:
        x: (B, C, H, W).
    """
    check_floats(x=x)
    if x.ndim != 4 or 0 in x.shape:
        raise UserError(f"images need the shape (B, C, H, W), got {tuple(x.shape)}")
    smooth = _smoothed(x)
    kept = torch.zeros_like(smooth)
    kept[:, :, ::2, ::2] = 4 * smooth[:, :, ::2, ::2]
    return x - _smoothed(kept)


@in_float32
def charbonnier(output: Tensor, target: Tensor, *, eps: float = 1e-3) -> Tensor:
    """mean sqrt(d^2 + eps^2), a smooth L1 distance.

    Args:
        output: (B, C, H, W).
        target: (B, C, H, W).
        eps: where it turns from squared to absolute.
    """
    check_floats(output=output, target=target)
    if output.ndim != 4 or output.shape != target.shape or 0 in output.shape:
        shapes = f"{tuple(output.shape)} and {tuple(target.shape)}"
        raise UserError(f"output and target need one shape (B, C, H, W), got {shapes}")
    return (output - target).square().add(eps**2).sqrt().mean()


@in_float32
def charbonnier_edge(output: Tensor, target: Tensor, *, edge: float = 0.05, eps: float = 1e-3) -> Tensor:
    """MPRNet's loss of one output: Charbonnier distance of the images and ``edge`` times that of their Laplacians.

    Args:
        output: (B, C, H, W).
        target: (B, C, H, W).
        edge: weight of the second term.
        eps: of both.
    """
    return charbonnier(output, target, eps=eps) + edge * charbonnier(laplacian(output), laplacian(target), eps=eps)


@in_float32
def head_distances(
    output: Tensor, target: Tensor, *, distance: Distance = "mse", edge: float = 0.05, eps: float = 1e-3
) -> Tensor:
    """How far every head is from its target: means over channels and pixels.

    Args:
        output: (B, heads, C, H, W).
        target: (B, C, H, W).
        distance: "mse", "l1", or "charbonnier_edge".
        edge: of the last.
        eps: of the last.

    Returns:
        (B, heads).

    Raises:
        UserError: (a ``ValueError``) shapes that don't fit.
    """
    _check(output, target)
    check_choice("distance", distance, ("mse", "l1", "charbonnier_edge"))
    if distance != "charbonnier_edge":
        return _errors(output, target, distance).mean((2, 3, 4))
    heads = output.shape[1]
    images, wanted = output.flatten(0, 1), target.repeat_interleave(heads, 0)
    plain = (images - wanted).square().add(eps**2).sqrt().mean((1, 2, 3))
    edges = (laplacian(images) - laplacian(wanted)).square().add(eps**2).sqrt().mean((1, 2, 3))
    return (plain + edge * edges).unflatten(0, (-1, heads))


@in_float32
def best_head(distances: Tensor) -> Tensor:
    """b(n) = argmin_h of (B, heads) distances: (B,) int64, the first where several are equal; NaN is refused."""
    _check_distances(distances)
    if bool(distances.isnan().any()):  # argmin takes it for the least
        raise UserError("distances hold NaN: no head is the best; the model diverged or an image is broken")
    return distances.argmin(1)


@in_float32
def win_rates(distances: Tensor) -> Tensor:
    """Share of the images on which each head is the best: (heads,), sum 1; a dead head stays at 0.

    All are NaN where a distance is.
    """
    _check_distances(distances)
    shares = F.one_hot(distances.argmin(1), distances.shape[1]).to(distances.dtype).mean(0)
    return shares.masked_fill(distances.isnan().any(), torch.nan)


@in_float32
def multi_head_psnr(
    output: Tensor,
    target: Tensor,
    *,
    to_y: bool = False,
    select: Select = "image",
    eps: float = 1e-8,
    soft: float = 0.0,
) -> Tensor:
    """Minus the PSNR of the best head, the loss of NAFNet and HINet.

        L = 10 / ln 10  mean_n ln( min_h mse[n, h] + eps )

    The logarithm is of each image's error, after the minimum and before the mean. The gradient reaches the winning
    head alone; of a mean of two heads it reaches either with half its size. One head: the ordinary PSNR loss.

    Args:
        output: (B, heads, C, H, W), values in [0, 1].
        target: (B, C, H, W).
        to_y: compare the luma (:func:`rgb_to_y`).
        select: "image"; "pixel" lets another head win at each pixel (not the paper's).
        eps: inside the logarithm; the loss is never below -80.
        soft: see :func:`multi_head`.

    Raises:
        UserError: (a ``ValueError``) shapes that don't fit.
    """
    return _psnr(output, target, to_y, select, soft, eps=eps)


@in_float32
def multi_head_mse(output: Tensor, target: Tensor, *, select: Select = "image", soft: float = 0.0) -> Tensor:
    """mean_n min_h mse[n, h]; arguments as of :func:`multi_head_psnr`."""
    return _least(output, target, "mse", select, soft).mean()


@in_float32
def multi_head_l1(output: Tensor, target: Tensor, *, select: Select = "image", soft: float = 0.0) -> Tensor:
    """mean_n min_h mean |y - x|, Restormer's loss; arguments as of :func:`multi_head_psnr`."""
    return _least(output, target, "l1", select, soft).mean()


@in_float32
def multi_head(
    output: Tensor,
    target: Tensor,
    *,
    edge: float = 0.05,
    eps: float = 1e-3,
    select: Select = "image",
    soft: float = 0.0,
) -> Tensor:
    """mean_n min_h (Charbonnier + edge times Charbonnier of the Laplacians), the loss of each stage of MPRNet.

    Args:
        output: (B, heads, C, H, W).
        target: (B, C, H, W).
        edge: weight of the Laplacians.
        eps: of the Charbonnier distance.
        select: "image" alone; a Laplacian belongs to no one pixel.
        soft: epsilon of the relaxed choice against dead heads: the best head counts 1 - soft, the others share soft.
            0 (default) is the paper's.

    Raises:
        UserError: (a ``ValueError``) shapes that don't fit, another choice.
    """
    if select != "image":
        raise UserError(f"select={select!r}: heads are chosen per image with Laplacians")
    return _relaxed(head_distances(output, target, distance="charbonnier_edge", edge=edge, eps=eps), soft).mean()


@in_float32
def multi_output_deblur(
    outputs: Tensor | Sequence[Tensor],
    target: Tensor,
    *,
    loss: Loss = "psnr",
    weight: float = 1.0,
    to_y: bool = False,
    select: Select = "image",
    soft: float = 0.0,
    last: Tensor | None = None,
) -> Tensor:
    """The loss of all stages of a network: their sum, each stage with a best head of its own.

    Args:
        outputs: (B, heads, C, H, W), or one of these per stage.
        target: (B, C, H, W).
        loss: of a stage: "psnr", "mse", "l1" or "charbonnier_edge" (:func:`multi_head`).
        weight: w of every stage; 1 for NAFNet, 0.5 for HINet's two.
        to_y: as of :func:`multi_head_psnr`.
        select: as there.
        soft: as of :func:`multi_head`.
        last: :func:`head_distances` of the last stage in the loss's own distance ("mse" for "psnr"), (B, heads), where
            they are known already, of lumas with ``to_y``; None (default) takes them anew.

    Raises:
        UserError: (a ``ValueError``) no output, shapes that don't fit, another loss.
    """
    check_choice("loss", loss, ("psnr", "mse", "l1", "charbonnier_edge"))
    check_choice("select", select, ("image", "pixel"))
    stages = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    if not stages:
        raise UserError("outputs: give the images of one stage or more")
    if last is not None and loss == "charbonnier_edge":
        raise UserError("last: the distances of charbonnier_edge are differentiated; leave them out")
    if to_y and loss != "psnr":
        raise UserError(f"to_y goes with loss='psnr', not {loss!r}")
    known = [None] * (len(stages) - 1) + [last]
    if loss == "charbonnier_edge":
        found = [multi_head(one, target, select=select, soft=soft) for one in stages]
    elif loss == "psnr":
        found = [_psnr(one, target, to_y, select, soft, own) for one, own in zip(stages, known, strict=True)]
    else:
        found = [_least(one, target, loss, select, soft, own).mean() for one, own in zip(stages, known, strict=True)]
    return weight * torch.stack(found).sum()


def _psnr(
    output: Tensor, target: Tensor, to_y: bool, select: str, soft: float, known: Tensor | None = None, eps: float = 1e-8
) -> Tensor:
    """Minus the PSNR of the best head."""
    _check(output, target)
    if to_y:
        output, target = rgb_to_y(output), rgb_to_y(target)
    return 10 / math.log(10) * (_least(output, target, "mse", select, soft, known) + eps).log().mean()


def _least(
    output: Tensor, target: Tensor, kind: Distance, select: str, soft: float, distances: Tensor | None = None
) -> Tensor:
    """(B,) error of the best head; that head alone is differentiated, where nothing else counts."""
    _check(output, target)
    check_choice("select", select, ("image", "pixel"))
    if select == "image" and not soft:
        with torch.no_grad():
            known = _errors(output, target, kind).mean((2, 3, 4)) if distances is None else distances
        _check_distances(known)
        if known.shape != output.shape[:2]:
            raise UserError(f"distances {tuple(known.shape)} are not those of {tuple(output.shape[:2])} images")
        best = output[torch.arange(len(output), device=output.device), known.argmin(1)]
        return _errors(best[:, None], target, kind).mean((1, 2, 3, 4))
    errors = _errors(output, target, kind)
    if select == "image":
        return _relaxed(errors.mean((2, 3, 4)), soft)
    per_pixel = errors.mean(2).flatten(2).transpose(1, 2)  # (B, places, heads)
    return _relaxed(per_pixel.flatten(0, 1), soft).unflatten(0, per_pixel.shape[:2]).mean(1)


def _relaxed(distances: Tensor, soft: float) -> Tensor:
    """(rows, heads) -> (rows,): the least, or mostly the least."""
    if not 0 <= soft < 1:
        raise UserError(f"soft={soft}: a share from 0 on and below 1")
    heads = distances.shape[1]
    least = distances.gather(1, distances.argmin(1, keepdim=True))[:, 0]
    if not soft or heads == 1:
        return least
    return (1 - soft) * least + soft * (distances.sum(1) - least) / (heads - 1)


def _errors(output: Tensor, target: Tensor, kind: str) -> Tensor:
    difference = output - target[:, None]
    return difference.square() if kind == "mse" else difference.abs()


def _smoothed(x: Tensor) -> Tensor:
    taps = x.new_tensor(_TAPS)
    planes = F.pad(x.flatten(0, 1)[:, None], (2, 2, 2, 2), mode="replicate")
    return F.conv2d(planes, torch.outer(taps, taps)[None, None]).reshape(x.shape)


def _check(output: Tensor, target: Tensor) -> None:
    check_floats(output=output, target=target)
    fits = output.ndim == 5 and target.ndim == 4 and 0 not in output.shape
    if not fits or (output.shape[0], *output.shape[2:]) != tuple(target.shape):
        raise UserError(
            "output needs the shape (B, heads, C, H, W) and target (B, C, H, W), "
            f"got {tuple(output.shape)} and {tuple(target.shape)}"
        )


def _check_distances(distances: Tensor) -> None:
    check_floats(distances=distances)
    if distances.ndim != 2 or 0 in distances.shape:
        raise UserError(f"distances are (B, heads), got {tuple(distances.shape)}")
