"""IBCLN (CVPR 2020, arXiv 1911.06634): both layers of every round, and that together they give the picture again.

I is the picture, T its transmission, T_k and R_k the layers of round k; ^2.2 is linear light.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_floats, in_float32

__all__ = ["ibcln", "ibcln_adversarial", "ibcln_discriminator"]

_GAMMA = 2.2


@in_float32
def ibcln(
    transmissions: Sequence[Tensor],
    reflections: Sequence[Tensor],
    target: Tensor,
    image: Tensor,
    *,
    alpha: Tensor | None = None,
    residual: float = 10.0,
) -> dict[str, Tensor]:
    """The pixel and residual terms, sums over the rounds.

        pixel       sum_k MSE(T_k, T)
        residual    sum_k MSE(I^2.2, alpha T_k^2.2 + R_k^2.2)
        reflection  sum_k MSE(I^2.2, alpha T^2.2 + R_k^2.2)
        loss        pixel + 10 residual + 10 reflection

    Args:
        transmissions: T_k, (B, C, H, W) each, not below 0.
        reflections: R_k, of the same shape.
        target: T.
        image: I.
        alpha: (B,) attenuation of the transmission where it is known; None: of real pictures the pixel term is left.
        residual: weight of the last two terms.

    Returns:
        ``loss``, ``pixel``, and where alpha is known ``residual`` and ``reflection``.

    Raises:
        UserError: (a ``ValueError``) no round, shapes that differ.
    """
    check_floats(target=target, image=image, alpha=alpha)
    if not transmissions or len(transmissions) != len(reflections):
        raise UserError(f"{len(transmissions)} transmissions and {len(reflections)} reflections: one of each per round")
    for layer in (*transmissions, *reflections, image):
        if layer.shape != target.shape or target.ndim != 4 or not layer.is_floating_point():
            raise UserError(f"layers need one shape (B, C, H, W), got {tuple(layer.shape)} and {tuple(target.shape)}")
    dtype = target.dtype
    pixel = torch.stack([(t.to(dtype) - target).square().mean() for t in transmissions]).sum()
    if alpha is None:
        return {"loss": pixel, "pixel": pixel}
    if tuple(alpha.shape) != (len(target),):
        raise UserError(f"alpha is one number for each of {len(target)} pictures, got the shape {tuple(alpha.shape)}")
    share = alpha.view(-1, 1, 1, 1)
    light, behind = _linear(image), share * _linear(target)
    mirrored = [_linear(r.to(dtype)) for r in reflections]
    own = [share * _linear(t.to(dtype)) for t in transmissions]
    rest = torch.stack([(light - t - r).square().mean() for t, r in zip(own, mirrored, strict=True)]).sum()
    layer = torch.stack([(light - behind - r).square().mean() for r in mirrored]).sum()
    return {"loss": pixel + residual * (rest + layer), "pixel": pixel, "residual": rest, "reflection": layer}


@in_float32
def ibcln_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """What D minimises, 1/2 [mean (D(T) - 1)^2 + mean D(T_K)^2]: least squares, means over all patches.

    Args:
        real: D(T), any shape.
        fake: D(T_K) of the last round, which is detached, of the same shape.

    Raises:
        UserError: (a ``ValueError``) no number, or shapes that differ.
    """
    check_floats(real=real, fake=fake)
    if real.shape != fake.shape or not real.numel():
        raise UserError(
            f"real and fake need one shape with numbers in it, got {tuple(real.shape)}, {tuple(fake.shape)}"
        )
    return ((real - 1).square().mean() + fake.square().mean()) / 2


@in_float32
def ibcln_adversarial(fake: Tensor) -> Tensor:
    """What the network minimises, mean (D(T_K) - 1)^2; its weight in IBCLN's loss is 0.01.

    Args:
        fake: D(T_K), any shape.

    Raises:
        UserError: (a ``ValueError``) no number.
    """
    check_floats(fake=fake)
    if not fake.numel():
        raise UserError("the discriminator gave no number for these pictures")
    return (fake - 1).square().mean()


def _linear(image: Tensor) -> Tensor:
    return image.clamp_min(0).pow(_GAMMA)
