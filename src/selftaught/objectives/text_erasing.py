"""Losses of self-supervised text erasing (Jiang et al., arXiv 2204.12743); those of its policy: `text_styling`.

g is a picture, x the same with text drawn on it, m its mask and m_r that of the text that g has (both 0 on text), out
what the generator makes of x. l1 is the mean absolute difference over all elements.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from selftaught.errors import UserError
from selftaught.objectives._common import in_float32
from selftaught.objectives._singular import svd

__all__ = [
    "erasing_adversarial",
    "erasing_composite",
    "erasing_discriminator",
    "erasing_feature_norm",
    "erasing_gradient_penalty",
    "erasing_hole",
    "erasing_mask",
    "erasing_multiscale",
    "erasing_perceptual",
    "erasing_style",
    "erasing_subspaces",
    "erasing_valid",
    "gram",
    "text_dice",
    "triplet_erasure",
]

Gan = Literal["hinge", "lsgan", "bce", "wgan-gp"]
_TINY = 1e-7


def _check(name: str, *images: Tensor, masks: Sequence[Tensor] = ()) -> None:
    """Refuse pictures that aren't floats (N, C, H, W) of one shape, and masks that aren't (N, 1 or C, H, W) of it."""
    shape = images[0].shape
    fits = all(one.shape == shape and one.is_floating_point() for one in images) and len(shape) == 4
    for mask in masks:
        one_channel = len(shape) == 4 and mask.shape == (shape[0], 1, *shape[2:])
        fits = fits and mask.is_floating_point() and (mask.shape == shape or one_channel)
    if not fits or not images[0].numel():
        found = ", ".join(f"{tuple(t.shape)} {t.dtype}" for t in (*images, *masks))
        raise UserError(f"{name}: floats (N, C, H, W) of one shape, masks (N, 1 or C, H, W) of it; got {found}")
    for mask in masks:
        if mask.device.type == "cpu" and not bool(((mask >= 0) & (mask <= 1)).all()):  # elsewhere the host would wait
            low, high = float(mask.min()), float(mask.max())
            raise UserError(f"{name}: a mask lies between 0 and 1, this one reaches from {low:.3g} to {high:.3g}")


def _check_values(name: str, *tensors: Tensor, dim: int | None = None) -> None:
    """Refuse what isn't floats, some of them, of so many axes."""
    for one in tensors:
        if not one.is_floating_point() or not one.numel() or (dim is not None and one.ndim != dim):
            axes = "" if dim is None else f" of {dim} axes"
            raise UserError(f"{name}: floats{axes}, one or more; got {tuple(one.shape)} {one.dtype}")


def _l1(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs().mean()


@in_float32
def erasing_composite(x: Tensor, out: Tensor, m: Tensor) -> Tensor:
    """y = m x + (1 - m) out; all (N, C, H, W), the mask may have one channel."""
    _check("erasing_composite", x, out, masks=[m])
    return m * x + (1 - m) * out


@in_float32
def erasing_hole(y: Tensor, g: Tensor, m: Tensor, *, weight: float = 10.0) -> Tensor:
    """weight l1((1 - m) y, (1 - m) g), over the whole picture: it grows with the share of text."""
    _check("erasing_hole", y, g, masks=[m])
    return weight * _l1((1 - m) * y, (1 - m) * g)


@in_float32
def erasing_valid(y: Tensor, g: Tensor, m: Tensor, m_r: Tensor, *, weight: float = 2.0) -> Tensor:
    """weight l1(m_r m y, m_r m g): what has no text stays; only without pasting."""
    _check("erasing_valid", y, g, masks=[m, m_r])
    return weight * _l1(m_r * m * y, m_r * m * g)


@in_float32
def erasing_multiscale(
    o1: Tensor,
    o2: Tensor,
    o3: Tensor,
    g: Tensor,
    m: Tensor,
    *,
    weights: Sequence[float] = (5.0, 6.0, 8.0),
    m_r: Tensor | None = None,
    valid_weights: Sequence[float] = (0.8, 1.0, 0.8),
) -> Tensor:
    """sum_s weight_s l1((1 - m_s) o_s, (1 - m_s) g_s) at 1/4, 1/2 and full size, g and m taken down to the nearest.

    Args:
        o1: (N, C, H/4, W/4).
        o2: (N, C, H/2, W/2).
        o3: (N, C, H, W).
        g: (N, C, H, W).
        m: (N, 1 or C, H, W).
        weights: of o1, o2, o3.
        m_r: mask of the text that g has; given (without pasting), valid_weight_s l1(m_r m o_s, m_r m g_s) is added.
        valid_weights: of these terms.
    """
    masks = [m] if m_r is None else [m, m_r]
    _check("erasing_multiscale", o3, g, masks=masks)
    sizes = {k: tuple(o.shape) for k, o in ((4, o1), (2, o2))}
    if any(size != (*g.shape[:2], g.shape[2] // k, g.shape[3] // k) for k, size in sizes.items()):
        raise UserError(f"erasing_multiscale: o1 {sizes[4]} and o2 {sizes[2]} are 1/4 and 1/2 of {tuple(g.shape)}")
    _check_values("erasing_multiscale", o1, o2)
    total = g.new_zeros(())
    for o, weight, valid, scale in zip((o1, o2, o3), weights, valid_weights, (4, 2, 1), strict=True):
        target, mask, *real = (F.interpolate(t, scale_factor=1 / scale) if scale > 1 else t for t in (g, *masks))
        total = total + weight * _l1((1 - mask) * o, (1 - mask) * target)
        if real:
            kept = real[0] * mask
            total = total + valid * _l1(kept * o, kept * target)
    return total


@in_float32
def gram(features: Tensor) -> Tensor:
    """F F^T / (C H W) of maps (N, C, H, W): (N, C, C)."""
    _check("gram", features)
    n, c, h, w = features.shape
    flat = features.reshape(n, c, h * w)
    return flat @ flat.transpose(1, 2) / (c * h * w)


def _raised(maps: Tensor) -> Tensor:
    return maps.float() if maps.dtype in (torch.float16, torch.bfloat16) else maps


def erasing_perceptual(
    made: Sequence[Tensor], wanted: Sequence[Tensor], pasted: Sequence[Tensor] | None = None, *, weight: float = 0.01
) -> Tensor:
    """weight sum_k [ l1(phi_k(y), phi_k(g)) + l1(phi_k(y'), phi_k(g)) ].

    Args:
        made: phi_k(y), k = 1..3.
        wanted: phi_k(g).
        pasted: phi_k(y'), y' = m x + (1 - m) y; None: y' = y, as with pasting.
        weight: of the sum.
    """
    return weight * _over_maps("erasing_perceptual", made, wanted, pasted, lambda maps: maps)


def erasing_style(
    made: Sequence[Tensor], wanted: Sequence[Tensor], pasted: Sequence[Tensor] | None = None, *, weight: float = 120.0
) -> Tensor:
    """The same of Gram matrices (:func:`gram`)."""
    return weight * _over_maps("erasing_style", made, wanted, pasted, gram)


def _over_maps(
    name: str,
    made: Sequence[Tensor],
    wanted: Sequence[Tensor],
    pasted: Sequence[Tensor] | None,
    of: Callable[[Tensor], Tensor],
) -> Tensor:
    if not made or len(made) != len(wanted) or (pasted is not None and len(pasted) != len(wanted)):
        raise UserError(f"{name}: as many maps of the result as of the target, one or more")
    total = torch.zeros((), device=wanted[0].device)
    for k, target in enumerate(wanted):
        for maps in (made[k], made[k] if pasted is None else pasted[k]):
            _check(name, maps, target)
            total = total + _l1(of(_raised(maps)), of(_raised(target)))
    return total


@in_float32
def text_dice(found: Tensor, target: Tensor, *, sigmoid: bool = True) -> Tensor:
    """1 - 2 sum(p t) / (sum(p^2) + .001 + sum(t^2) + .001) of each sample, p = sigmoid(found): (N,)."""
    _check("text_dice", found, masks=[target])
    p = (found.sigmoid() if sigmoid else found).flatten(1)
    t = target.expand_as(found).flatten(1)
    return 1 - 2 * (p * t).sum(1) / (p.square().sum(1) + 0.001 + t.square().sum(1) + 0.001)


@in_float32
def erasing_mask(logits: Tensor, m: Tensor, m_r: Tensor, *, sigmoid: bool = True) -> Tensor:
    """Mean :func:`text_dice` against 1 - m m_r: drawn and real text."""
    _check("erasing_mask", logits, masks=[m, m_r])
    return text_dice(logits, 1 - m * m_r, sigmoid=sigmoid).mean()


@in_float32
def erasing_discriminator(real: Tensor, fake: Tensor, *, gan: Gan = "hinge") -> Tensor:
    """L_D of scores D(g, m) and D(y, m).

    hinge: relu(1 - mean D(g)) + relu(1 + mean D(y)), of the batch's mean; lsgan: (D - 1)^2 and D^2; bce: of logits;
    wgan-gp: mean D(y) - mean D(g), to which the gradient penalty is to be added.
    """
    _check_values("erasing_discriminator", real, fake)
    if gan == "hinge":
        return F.relu(1 - real.mean()) + F.relu(1 + fake.mean())
    if gan == "lsgan":
        return (real - 1).square().mean() + fake.square().mean()
    if gan == "bce":
        return F.softplus(-real).mean() + F.softplus(fake).mean()
    if gan == "wgan-gp":
        return fake.mean() - real.mean()
    raise UserError(f"gan={gan}: it may be hinge, lsgan, bce, wgan-gp")


@in_float32
def erasing_gradient_penalty(
    judge: Callable[[Tensor, Tensor], Tensor], g: Tensor, y: Tensor, m: Tensor, *, weight: float = 10.0
) -> Tensor:
    """weight mean (||grad D(u g + (1 - u) y, m)|| - 1)^2, u drawn evenly for each sample; of wgan-gp.

    Args:
        judge: D(image, mask) -> scores.
        g: (N, C, H, W).
        y: of the same shape, taken without gradient.
        m: its mask.
        weight: of the penalty.
    """
    _check("erasing_gradient_penalty", g, y, masks=[m])
    share = torch.rand(len(g), 1, 1, 1, device=g.device, dtype=g.dtype)
    between = (share * g + (1 - share) * y).detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(judge(between, m).sum(), between, create_graph=True)
    return weight * (slope.flatten(1).norm(dim=1) - 1).square().mean()


@in_float32
def erasing_adversarial(fake: Tensor, *, gan: Gan = "hinge", weight: float = 0.1) -> Tensor:
    """The generator's term of D(y, m): -weight mean D for hinge and wgan-gp, weight times the loss of "real" else."""
    _check_values("erasing_adversarial", fake)
    if gan in ("hinge", "wgan-gp"):
        return -weight * fake.mean()
    if gan == "lsgan":
        return weight * (fake - 1).square().mean()
    if gan == "bce":
        return weight * F.softplus(-fake).mean()
    raise UserError(f"gan={gan}: it may be hinge, lsgan, bce, wgan-gp")


@in_float32
def triplet_erasure(
    y: Tensor, x: Tensor, coarse: Tensor, *, weight: float = 0.01, ratio: float = 50.0, power: float = 2.0
) -> Tensor:
    """L_tri = weight d(R, X) / (1e-7 + d(R, X) + ratio max(1e-7, d(C, R)^power)),   d = l1, C detached.

    In [0, weight], growing with d(R, X) and falling with d(C, R): near the textures of the input, away from the blurry
    coarse result.

    Args:
        y: R, the composite of the refined result.
        x: X, the input.
        coarse: C, the composite of the coarse result.
        weight: largest value.
        ratio: of the distance from the coarse result.
        power: of it.
    """
    _check("triplet_erasure", y, x, coarse)
    near, far = _l1(y, x), _l1(coarse.detach(), y)
    return weight * near / (_TINY + near + ratio * (far**power).clamp_min(_TINY))


# ---- between drawn and real text -------------------------------------------------------------------------------------
@in_float32
def erasing_subspaces(drawn: Tensor, real: Tensor, *, weight: float = 0.01, bases: float = 0.01) -> Tensor:
    """Distance of the subspaces that the features of two domains span (RSD; Chen et al., ICML 2021).

        F^T = U S V^T of both,   U_s^T U_t = P_s diag(cos) P_t^T:   weight ( sum |sin| + bases || |P_s| - |P_t| || )

    Args:
        drawn: (N, D) features of pictures with drawn text.
        real: (N, D) of pictures with their own.
        weight: of the distance.
        bases: weight of the mismatch of the bases.

    Raises:
        UserError: other shapes, or more rows than features.
    """
    _check_values("erasing_subspaces", drawn, real, dim=2)
    if drawn.shape != real.shape or drawn.shape[0] > drawn.shape[1]:
        raise UserError(f"erasing_subspaces: {tuple(drawn.shape)} and {tuple(real.shape)}, alike and N at most D")
    if not bool((drawn.isfinite() & real.isfinite()).all()):
        raise UserError("erasing_subspaces: NaN or infinite features; the network diverged")
    left = [svd(one.T)[0] for one in (drawn, real)]
    p, cos, q = svd(left[0].T @ left[1])
    sin = (1 - cos.square()).clamp_min(1e-12).sqrt()
    apart = (p.abs() - q.T.abs()).square().sum().clamp_min(torch.finfo(p.dtype).tiny).sqrt()  # norm() bends to NaN at 0
    return weight * (sin.sum() + bases * apart)


@in_float32
def erasing_feature_norm(features: Tensor, *, delta: float = 1.0, weight: float = 0.05) -> Tensor:
    """weight mean (||f|| - (||f|| without gradient + delta))^2: norms grow step by step (AFN; Xu et al., ICCV 2019).

    Args:
        features: (N, D).
        delta: by how much they are to grow.
        weight: of the term.
    """
    _check_values("erasing_feature_norm", features, dim=2)
    norms = features.norm(dim=1)
    return weight * (norms - (norms.detach() + delta)).square().mean()
