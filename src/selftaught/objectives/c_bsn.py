"""Denoising from noisy images alone with a conditional blind-spot network (C-BSN, ICCV 2023, arXiv 2304.09507)."""

from __future__ import annotations

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_choice, check_floats, check_range, in_float32, mean_distance

__all__ = [
    "b2s",
    "blind_spot",
    "c_bsn",
    "c_bsn_ramp",
    "c_bsn_terms",
    "denormalise_patch",
    "draw_subsample",
    "normalise_patch",
    "random_subsample",
    "s2b",
]


def s2b(x: Tensor, r: int) -> Tensor:
    """Space to batch: split every image into its r*r phase images, stacked in the batch.

    Args:
        x: (B, C, H, W), H and W multiples of r.
        r: stride.

    Returns:
        (r*r*B, C, H/r, W/r); phase (i, j), which is ``x[:, :, i::r, j::r]``, fills the rows from (i*r + j)*B on.

    Raises:
        UserError: (a ``ValueError``) a side isn't a multiple of r: crop the patch, never pad it.
    """
    batch, channels, height, width = _check_image(x, r)
    cells = x.reshape(batch, channels, height // r, r, width // r, r)
    return cells.permute(3, 5, 0, 1, 2, 4).reshape(r * r * batch, channels, height // r, width // r)


def b2s(x: Tensor, r: int) -> Tensor:
    """Batch to space: the inverse of :func:`s2b`, (r*r*B, C, h, w) to (B, C, r*h, r*w).

    Raises:
        UserError: (a ``ValueError``) the batch isn't a multiple of r*r.
    """
    stacked, channels, height, width = _check_image(x, 1)
    if r < 1 or stacked % (r * r):
        raise UserError(f"b2s with stride {r} needs a batch that is a multiple of {r * r}, got {stacked}")
    phases = x.reshape(r, r, stacked // (r * r), channels, height, width)
    return phases.permute(2, 3, 4, 0, 5, 1).reshape(stacked // (r * r), channels, height * r, width * r)


def draw_subsample(
    x: Tensor, r: int, *, subsampler: str = "random", generator: torch.Generator | None = None
) -> Tensor:
    """Draw which pixel of every r x r cell :func:`random_subsample` keeps.

    Args:
        x: (B, C, H, W), for its shape and device.
        r: side of a cell.
        subsampler: ``"random"`` draws for every sample and cell; ``"pixel-shuffle"`` draws one phase per sample,
            the same in all its cells (the ablation of the random subsampler).
        generator: source of randomness on x's device; default the global one.

    Returns:
        m (B, H/r, W/r) int64 in 0..r*r-1, row-major inside the cell.
    """
    check_choice("subsampler", subsampler, ("random", "pixel-shuffle"))
    batch, _, height, width = _check_image(x, r)
    cells = (height // r, width // r)
    shape = (batch, *cells) if subsampler == "random" else (batch, 1, 1)
    drawn = torch.randint(r * r, shape, generator=generator, device=x.device)
    return drawn.expand(batch, *cells).contiguous()


def random_subsample(x: Tensor, m: Tensor, r: int) -> Tensor:
    """RS_r(x; m): keep one pixel of every r x r cell, the same one in all channels.

    Args:
        x: (B, C, H, W).
        m: (B, H/r, W/r) int64 in 0..r*r-1 (looked at on the CPU only), from :func:`draw_subsample`. Use the same m for
            x and for f(x).
        r: side of a cell.

    Returns:
        (B, C, H/r, W/r).

    Raises:
        UserError: (a ``ValueError``) sides that aren't multiples of r, an m of another shape or out of range.
    """
    batch, channels, height, width = _check_image(x, r)
    rows, columns = height // r, width // r
    if m.shape != (batch, rows, columns):
        raise UserError(f"m must have the shape {(batch, rows, columns)} for stride {r}, got {tuple(m.shape)}")
    if m.dtype != torch.int64:
        raise UserError(f"m must be int64, got {m.dtype}")
    check_range("m", m, 0, r * r)
    row = torch.arange(rows, device=x.device).view(1, -1, 1) * r + m.div(r, rounding_mode="floor")
    column = torch.arange(columns, device=x.device) * r + m % r
    flat = (row * width + column).view(batch, 1, -1).expand(-1, channels, -1)
    return x.flatten(2).gather(2, flat).view(batch, channels, rows, columns)


@in_float32
def normalise_patch(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Standardise every image and channel over its pixels; all losses of C-BSN are computed in this domain.

        x <- (x - mean) / max(std, 1/sqrt(H W)),    population deviation (for a P x P patch the floor is 1/P)

    Args:
        x: (B, C, H, W), intensities in [0, 1].

    Returns:
        The normalised images (B, C, H, W), the means and the floored deviations (B, C, 1, 1).
    """
    mean, std = patch_statistics(x)
    return (x - mean) / std, mean, std


@in_float32
def patch_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """The means and floored deviations (B, C, 1, 1) of :func:`normalise_patch`."""
    _, _, height, width = _check_image(x, 1)
    if not x.is_floating_point() or not height * width:
        raise UserError(f"images need floating-point values and pixels, got {x.dtype} {tuple(x.shape)}")
    variance, mean = torch.var_mean(x, dim=(2, 3), correction=0, keepdim=True)
    # Floor the variance, not the root: the same value, and no infinite slope of the root on a flat patch.
    return mean, variance.clamp_min(1 / (height * width)).sqrt()


@in_float32
def denormalise_patch(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Undo :func:`normalise_patch`: std * x + mean.

    Args:
        x: (B, C, H, W) normalised images.
        mean: (B, C, 1, 1).
        std: (B, C, 1, 1).

    Raises:
        UserError: (a ``ValueError``) other shapes.
    """
    batch, channels, _, _ = _check_image(x, 1)
    if not mean.shape == std.shape == (batch, channels, 1, 1):
        given = f"{tuple(mean.shape)} and {tuple(std.shape)}"
        raise UserError(f"mean and std need the shape {(batch, channels, 1, 1)}, got {given}")
    return x * std + mean


def c_bsn(
    blind_full: Tensor,
    unmasked: Tensor,
    blind_sub: Tensor,
    x: Tensor,
    m: Tensor,
    *,
    ramp: float = 1.0,
    lambda_: float = 2.0,
    loss: str = "l1",
) -> Tensor:
    """The training loss of C-BSN (arXiv 2304.09507; reductions of the official code).

        L = L_blind + ramp * (L_self + lambda * L_inv)
        L_blind = mean |B2S(f_M(S2B(x))) - x|,    L_self = mean |f(x) - x|
        L_inv = mean |RS(f(x); m) - sg(f_M(RS(x; m)))|

    with f the network that sees the centre pixel, f_M the blind one and sg the stop-gradient, which is applied here.

    Args:
        blind_full: (B, C, H, W) ``b2s(f_M(s2b(x, stride_blind)), stride_blind)``.
        unmasked: (B, C, H, W) f(x).
        blind_sub: (B, C, H/r, W/r) ``f_M(random_subsample(x, m, r))``; r follows from the shape of m.
        x: (B, C, H, W) normalised noisy images.
        m: (B, H/r, W/r) int64, the draw that made ``blind_sub``.
        ramp: s(t) in [0, 1], from :func:`c_bsn_ramp`.
        lambda_: weight of the invariance term. 0 lets the unmasked output become the identity.
        loss: ``"l1"`` (official) or ``"l2"``, the distance of all three terms.

    Returns:
        A scalar >= 0.

    Raises:
        UserError: (a ``ValueError``) shapes that don't belong together.
    """
    return c_bsn_terms(blind_full, unmasked, blind_sub, x, m, ramp=ramp, lambda_=lambda_, loss=loss)["loss"]


@in_float32
def c_bsn_terms(
    blind_full: Tensor,
    unmasked: Tensor,
    blind_sub: Tensor,
    x: Tensor,
    m: Tensor,
    *,
    ramp: float = 1.0,
    lambda_: float = 2.0,
    loss: str = "l1",
) -> dict[str, Tensor]:
    """:func:`c_bsn` with its terms: ``loss``, ``blind``, ``self`` and ``invariance`` (without their weights)."""
    check_choice("loss", loss, ("l1", "l2"))
    if not blind_full.shape == unmasked.shape == x.shape:
        shapes = ", ".join(str(tuple(t.shape)) for t in (blind_full, unmasked, x))
        raise UserError(f"blind_full, unmasked and x need one shape (B, C, H, W), got {shapes}")
    check_floats(blind_full=blind_full, unmasked=unmasked, blind_sub=blind_sub, x=x)
    if m.ndim != 3 or x.ndim != 4 or not m.numel() or x.shape[2] % m.shape[1]:
        raise UserError(f"m must be (B, H/r, W/r) for x {tuple(x.shape)}, got {tuple(m.shape)}")
    sub = random_subsample(unmasked, m, x.shape[2] // m.shape[1])
    if sub.shape != blind_sub.shape:
        raise UserError(
            f"blind_sub must have the shape {tuple(sub.shape)} of the subsample, got {tuple(blind_sub.shape)}"
        )
    blind = mean_distance(blind_full, x, loss)
    itself = mean_distance(unmasked, x, loss)
    invariance = mean_distance(sub, blind_sub.detach(), loss)
    total = blind + ramp * (itself + lambda_ * invariance)
    return {"loss": total, "blind": blind, "self": itself, "invariance": invariance}


@in_float32
def blind_spot(blind_full: Tensor, x: Tensor, *, loss: str = "l1") -> Tensor:
    """L_blind alone: the plain blind-spot network with stride 1, or AP-BSN with a larger one; the baselines of C-BSN.

    Args:
        blind_full: (B, C, H, W) output of the blind network.
        x: (B, C, H, W) noisy images.
        loss: ``"l1"`` or ``"l2"``.
    """
    check_choice("loss", loss, ("l1", "l2"))
    check_floats(blind_full=blind_full, x=x)
    if blind_full.shape != x.shape or not x.numel():
        raise UserError(f"blind_full and x need one shape, got {tuple(blind_full.shape)} and {tuple(x.shape)}")
    return mean_distance(blind_full, x, loss)


def c_bsn_ramp(step: int, ramp_steps: int = 200_000) -> float:
    """s(t) = clip(t / ramp_steps, 0, 1), the weight of the self and invariance terms; short runs: 0.4 of the steps."""
    return 1.0 if ramp_steps <= 0 else min(max(step / ramp_steps, 0.0), 1.0)


def _check_image(x: Tensor, r: int) -> tuple[int, int, int, int]:
    if x.ndim != 4:
        raise UserError(f"images need the shape (B, C, H, W), got {tuple(x.shape)}")
    batch, channels, height, width = x.shape
    if r < 1 or height % r or width % r:
        raise UserError(f"an image of {height} x {width} isn't a multiple of the stride {r}: crop it to one")
    return batch, channels, height, width
