"""Super-resolution with a perceptual loss (SRGAN, CVPR 2017, arXiv 1609.04802): content and adversarial losses.

x is the high-resolution image, g = G(low) the generated one, t = logit of D; all losses are means over the batch.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn.functional import pad, softplus

from selftaught.errors import UserError
from selftaught.objectives._common import check_choice, check_floats, in_float32

__all__ = [
    "FEATURE_SCALE",
    "srgan_adversarial",
    "srgan_discriminator",
    "srgan_perceptual",
    "srgan_pixel",
    "srgan_vgg",
    "total_variation",
]

FEATURE_SCALE = 1 / 12.75
"""What VGG19's maps are multiplied by, so that their squared distance is of the size of the pixels' (section 3.2)."""

Reduction = Literal["mean", "sum"]


@in_float32
def srgan_pixel(generated: Tensor, target: Tensor) -> Tensor:
    """l_MSE, equation 4: mean squared difference over images, channels and pixels.

        l_MSE = 1 / (r^2 W H) sum_{x,y} (x - g)^2,    mean over the C channels and the batch

    Args:
        generated: (B, C, H, W) g, in [-1, 1] as the paper has it.
        target: (B, C, H, W) x of the same range.

    Raises:
        UserError: (a ``ValueError``) shapes that differ or aren't those of images.
    """
    check_floats(generated=generated, target=target)
    _check_pair(generated, target)
    return (generated - target).square().mean()


@in_float32
def srgan_vgg(generated: Tensor, target: Tensor, *, feature_scale: float = FEATURE_SCALE) -> Tensor:
    """l_VGG/i,j, equation 5: squared distance of feature maps, summed over channels and averaged over places.

        l_VGG = 1 / (W_ij H_ij) sum_{x,y,channel} (s phi(x) - s phi(g))^2,    mean over the batch

    It isn't divided by the number of channels: averaged over them too it would be 512 times smaller, and the
    adversarial term would rule.

    Args:
        generated: (B, F, h, w) phi(g), maps after the activation.
        target: (B, F, h, w) phi(x).
        feature_scale: s; 1/12.75 multiplies the squared loss by 0.00615.

    Raises:
        UserError: (a ``ValueError``) shapes that differ or aren't those of maps.
    """
    check_floats(generated=generated, target=target)
    _check_pair(generated, target)
    return (feature_scale * (generated - target)).square().sum(1).mean()


@in_float32
def srgan_adversarial(generated: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """l_Gen, equation 6: -log D(g) = softplus(-t), the form whose gradient doesn't vanish where D is sure.

    Args:
        generated: logits t of D(g), (B,) or (B, 1).
        reduction: over the batch; the paper writes a sum.

    Raises:
        UserError: (a ``ValueError``) no logits, or another reduction.
    """
    check_floats(generated=generated)
    check_choice("reduction", reduction, ("mean", "sum"))
    _check_logits(generated)
    losses = softplus(-generated)
    return losses.mean() if reduction == "mean" else losses.sum()


@in_float32
def srgan_discriminator(real: Tensor, generated: Tensor) -> Tensor:
    """What the discriminator minimises, equation 2: -mean log D(x) - mean log(1 - D(g)).

    Args:
        real: logits of D(x), (B,) or (B, 1).
        generated: logits of D(g) with g detached.

    Returns:
        A scalar; 2 log 2 where D can't tell.
    """
    check_floats(real=real, generated=generated)
    _check_logits(real)
    _check_logits(generated)
    return softplus(-real).mean() + softplus(generated).mean()


@in_float32
def srgan_perceptual(
    content: Tensor, logits: Tensor, *, adv_weight: float = 1e-3, reduction: Reduction = "mean"
) -> dict[str, Tensor]:
    """The perceptual loss l_SR, equation 3: content loss plus 1e-3 times the adversarial one.

    Args:
        content: scalar l_X, from :func:`srgan_pixel` or :func:`srgan_vgg`.
        logits: logits of D(g), (B,) or (B, 1).
        adv_weight: weight of the adversarial term; 0 leaves the content loss alone (SRResNet).
        reduction: of the adversarial term.

    Returns:
        ``loss``, ``content`` and ``adversarial`` (without its weight).
    """
    if content.ndim:
        raise UserError(f"content is one number, the content loss; got the shape {tuple(content.shape)}")
    adversarial = srgan_adversarial(logits, reduction=reduction)
    return {"loss": content + adv_weight * adversarial, "content": content, "adversarial": adversarial}


@in_float32
def total_variation(image: Tensor) -> Tensor:
    """Length of the gradient, 1 / (H W) sum |grad g|, with forward differences; mean over the batch.

        |grad g|_{y,x} = sqrt( sum_c (g_{y+1,x} - g_{y,x})^2 + (g_{y,x+1} - g_{y,x})^2 )

    The first version of the paper added 2e-8 of its sum to SRResNet-VGG22. Differences over the last row and column
    are 0; where an image is flat the gradient is 0.

    Args:
        image: (B, C, H, W).

    Raises:
        UserError: (a ``ValueError``) another shape, no pixels, integers (whose differences would wrap around).
    """
    check_floats(image=image)
    if image.ndim != 4 or 0 in image.shape:
        raise UserError(f"images need the shape (B, C, H, W), got {tuple(image.shape)}")
    down, right = pad(image.diff(dim=2), (0, 0, 0, 1)), pad(image.diff(dim=3), (0, 1, 0, 0))
    squared = (down.square() + right.square()).sum(1)
    flat = squared == 0
    return squared.masked_fill(flat, 1.0).sqrt().masked_fill(flat, 0.0).mean()


def _check_pair(generated: Tensor, target: Tensor) -> None:
    if generated.ndim != 4 or generated.shape != target.shape or 0 in generated.shape:
        raise UserError(
            f"generated and target need one shape (B, C, H, W), got {tuple(generated.shape)} and {tuple(target.shape)}"
        )


def _check_logits(logits: Tensor) -> None:
    if logits.ndim not in (1, 2) or logits.numel() == 0 or (logits.ndim == 2 and logits.shape[1] != 1):
        raise UserError(f"the discriminator gives one logit per image, (B,) or (B, 1); got {tuple(logits.shape)}")
