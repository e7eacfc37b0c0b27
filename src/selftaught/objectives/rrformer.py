"""Reflection removal (RRFormer, arXiv 2308.00265, after ERRNet, arXiv 1904.00637): pixels, features, relativistic GAN.

O is the network's output, T the transmission that it should be, r = D(T) and f = D(O) the discriminator's logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

from selftaught.errors import UserError
from selftaught.objectives._common import check_choice, check_floats, in_float32

__all__ = [
    "REFLECTION_FEATURE_WEIGHTS",
    "rrformer",
    "rrformer_adversarial",
    "rrformer_discriminator",
    "rrformer_feature",
    "rrformer_gradient",
    "rrformer_pixel",
]

REFLECTION_FEATURE_WEIGHTS = (1 / 2.6, 1 / 4.8, 1 / 3.7, 1 / 5.6, 10 / 1.5)
"""Weights of VGG19's relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1."""

Gan = Literal["rasgan", "rsgan", "sgan"]
_GANS = ("rasgan", "rsgan", "sgan")


@in_float32
def rrformer_gradient(output: Tensor, target: Tensor) -> Tensor:
    """mean |d_v O - d_v T| + mean |d_h O - d_h T|, forward differences along height and width, each a mean of its own.

    Args:
        output: (B, C, H, W) O, at least 2 x 2.
        target: (B, C, H, W) T.

    Raises:
        UserError: (a ``ValueError``) shapes that differ or aren't those of images.
    """
    check_floats(output=output, target=target)
    _check_images(output, target)
    apart = output - target
    return apart.diff(dim=2).abs().mean() + apart.diff(dim=3).abs().mean()


@in_float32
def rrformer_pixel(output: Tensor, target: Tensor, *, mse: float = 0.2, gradient: float = 0.4) -> Tensor:
    """L_pix = 0.2 MSE(O, T) + 0.4 gradient term (:func:`rrformer_gradient`).

    Args:
        output: (B, C, H, W) O in about [0, 1].
        target: (B, C, H, W) T.
        mse: weight of the squared error.
        gradient: weight of the gradient term.

    Returns:
        A scalar; ``mse`` times c^2 where O = T + c.

    Raises:
        UserError: (a ``ValueError``) shapes that differ or aren't those of images.
    """
    check_floats(output=output, target=target)
    _check_images(output, target)
    return mse * (output - target).square().mean() + gradient * rrformer_gradient(output, target)


@in_float32
def rrformer_feature(
    output: Sequence[Tensor], target: Sequence[Tensor], *, weights: Sequence[float] = REFLECTION_FEATURE_WEIGHTS
) -> Tensor:
    """L_feat = sum_i w_i mean |phi_i(O) - phi_i(T)|, T's maps detached.

    Args:
        output: phi_i(O), (B, F, h, w) each, of the ImageNet-normalised image.
        target: phi_i(T), of the same shapes.
        weights: w_i, one for each map; longer ones are cut.

    Raises:
        UserError: (a ``ValueError``) no map, more maps than weights, shapes that differ.
    """
    if not output or len(output) != len(target) or len(output) > len(weights):
        raise UserError(
            f"{len(output)} and {len(target)} maps, {len(weights)} weights: as many maps of both, one or more"
        )
    total = torch.zeros((), device=output[0].device)
    for weight, found, wanted in zip(weights, output, target, strict=False):
        check_floats(output=found, target=wanted)
        if found.shape != wanted.shape or 0 in found.shape:
            raise UserError(f"maps need one shape, got {tuple(found.shape)} and {tuple(wanted.shape)}")
        dtype = torch.promote_types(found.dtype, torch.float32)
        total = total + weight * (found.to(dtype) - wanted.detach().to(dtype)).abs().mean()
    return total


@in_float32
def rrformer_discriminator(real: Tensor, fake: Tensor, *, gan: Gan = "rasgan") -> Tensor:
    """What D minimises, of logits with O detached.

        rasgan   1/2 [BCE(r - mean f, 1) + BCE(f - mean r, 0)]     rsgan   BCE(r - f, 1)
        sgan     1/2 [BCE(r, 1) + BCE(f, 0)]                       BCE of a logit: softplus(-t) for 1, softplus(t) for 0

    Args:
        real: r, (B,) or (B, 1).
        fake: f, of the same shape.
        gan: which of them (Jolicoeur-Martineau 2018).

    Returns:
        A scalar; log 2 where D can't tell.

    Raises:
        UserError: (a ``ValueError``) no logits, shapes that differ, another gan.
    """
    r, f = _logits(real, fake, gan)
    if gan == "rsgan":
        return softplus(f - r).mean()
    if gan == "sgan":
        return (softplus(-r).mean() + softplus(f).mean()) / 2
    return (softplus(-(r - f.mean(0))).mean() + softplus(f - r.mean(0)).mean()) / 2


@in_float32
def rrformer_adversarial(real: Tensor, fake: Tensor, *, gan: Gan = "rasgan") -> Tensor:
    """L_G, what the network minimises: :func:`rrformer_discriminator` with r and f exchanged; of sgan BCE(f, 1).

    Args:
        real: r, (B,) or (B, 1); its gradient isn't cut here.
        fake: f, of the same shape.
        gan: "rasgan", "rsgan" or "sgan".

    Raises:
        UserError: (a ``ValueError``) no logits, shapes that differ, another gan.
    """
    r, f = _logits(real, fake, gan)
    return softplus(-f).mean() if gan == "sgan" else rrformer_discriminator(f, r, gan=gan)


@in_float32
def rrformer(
    output: Tensor,
    target: Tensor,
    *,
    output_maps: Sequence[Tensor] = (),
    target_maps: Sequence[Tensor] = (),
    real: Tensor | None = None,
    fake: Tensor | None = None,
    mse: float = 0.2,
    gradient: float = 0.4,
    feat_weight: float = 0.1,
    gan_weight: float = 0.01,
    gan: Gan = "rasgan",
) -> dict[str, Tensor]:
    """L = L_pix + 0.1 L_feat + 0.01 L_G; terms whose inputs aren't given are left out.

    Args:
        output: (B, C, H, W) O.
        target: (B, C, H, W) T.
        output_maps: phi_i(O).
        target_maps: phi_i(T).
        real: logits r of T.
        fake: logits f of O.
        mse: weight of the squared error in L_pix.
        gradient: weight of the gradient term in L_pix.
        feat_weight: weight of L_feat.
        gan_weight: weight of L_G.
        gan: see :func:`rrformer_discriminator`.

    Returns:
        ``loss``, ``pixel``, and ``feature`` and ``adversarial`` without their weights.
    """
    if (real is None) != (fake is None) or len(output_maps) != len(target_maps):
        raise UserError("the adversarial term needs real and fake, the feature term maps of both; give both or neither")
    pixel = rrformer_pixel(output, target, mse=mse, gradient=gradient)
    terms = {"loss": pixel, "pixel": pixel}
    if output_maps:
        terms["feature"] = rrformer_feature(output_maps, target_maps)
        terms["loss"] = terms["loss"] + feat_weight * terms["feature"]
    if real is not None and fake is not None:
        terms["adversarial"] = rrformer_adversarial(real, fake, gan=gan)
        terms["loss"] = terms["loss"] + gan_weight * terms["adversarial"]
    return terms


def _check_images(output: Tensor, target: Tensor) -> None:
    if output.ndim != 4 or output.shape != target.shape or min(output.shape) == 0 or min(output.shape[2:]) < 2:
        raise UserError(
            f"output and target need one shape (B, C, H, W) of at least 2 x 2 pixels, got {tuple(output.shape)} and "
            f"{tuple(target.shape)}"
        )


def _logits(real: Tensor, fake: Tensor, gan: str) -> tuple[Tensor, Tensor]:
    check_choice("gan", gan, _GANS)
    check_floats(real=real, fake=fake)
    for logits in (real, fake):
        if logits.ndim not in (1, 2) or logits.numel() == 0 or (logits.ndim == 2 and logits.shape[1] != 1):
            raise UserError(f"the discriminator gives one logit per image, (B,) or (B, 1); got {tuple(logits.shape)}")
    if real.shape != fake.shape:
        raise UserError(f"real and fake need one shape, got {tuple(real.shape)} and {tuple(fake.shape)}")
    return real, fake
