"""The losses of SelfDRSC (Shang et al., ICCV 2023, arXiv 2305.19862), and IFED's, which learns from clean frames.

The global-shutter frames that a network makes are distorted back to both rolling-shutter pictures
(`selftaught.networks.redistorted`), and compared with them there, by

    Charb(x, y) = mean sqrt((x - y)^2 + 1e-9)        Perc(x, y) = mean |phi(x) - phi(y)|
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_floats, in_float32
from selftaught.objectives.multi_output_deblur import charbonnier

__all__ = [
    "feature_distance",
    "flow_variation",
    "selfdrsc",
    "selfdrsc_distillation",
    "selfdrsc_supervised",
]

_EPSILON = 1e-9**0.5
"""Of the Charbonnier distance: mean sqrt((x - y)^2 + 1e-9)."""
Features = Callable[[Tensor], Tensor]


def feature_distance(x: Tensor, y: Tensor, features: Features) -> Tensor:
    """mean |phi(x) - phi(y)|, no gradient to y.

    Args:
        x: pictures (N, C, H, W).
        y: the pictures to be alike, same shape.
        features: phi, (N, C, H, W) to a map.

    Raises:
        UserError: other shapes.
    """
    _check(x, y)
    with torch.no_grad():
        wanted = features(y)
    return (features(x) - wanted).abs().mean()


@in_float32
def flow_variation(flows: Tensor) -> Tensor:
    """mean (dx^2 + dy^2) of forward differences; past the last column and row there is none.

    Args:
        flows: (N, C, H, W), any number of flows.

    Raises:
        UserError: not four axes.
    """
    check_floats(flows=flows)
    if flows.dim() != 4 or 0 in flows.shape:
        raise UserError(f"flows: shape {tuple(flows.shape)}; pass (N, C, H, W)")
    across, down = flows.diff(dim=3).square().sum(), flows.diff(dim=2).square().sum()
    return (across + down) / flows.numel()


def _likeness(x: Tensor, y: Tensor, features: Features | None, perceptual: float) -> tuple[Tensor, Tensor]:
    """Charbonnier and feature terms, without weights."""
    zero = x.new_zeros(())
    return charbonnier(x, y.detach(), eps=_EPSILON), feature_distance(
        x, y, features
    ) if features and perceptual else zero


def selfdrsc(
    reconstructed: Mapping[str, Tensor],
    pictures: Mapping[str, Tensor],
    flows: Sequence[Tensor],
    features: Features | None = None,
    *,
    perceptual: float = 0.1,
    smoothness: float = 0.1,
) -> dict[str, Tensor]:
    """The self-supervised loss of a pair.

    L = sum over reconstructions (Charb + perceptual Perc) + smoothness sum over levels TV

    Args:
        reconstructed: "t2b" and "b2t", and with the middle frame "t2b mid" and "b2t mid", (N, C, H, W) each.
        pictures: the pair, "t2b" and "b2t"; no gradient goes to it.
        flows: of all levels, (N, 4n, h, w) each.
        features: phi of `feature_distance`; None leaves the term out.
        perceptual: its weight.
        smoothness: of the variation of the flows.

    Returns:
        ``loss``, ``reconstruction`` and ``perceptual`` (sums over the reconstructions, without weights), ``variation``.

    Raises:
        UserError: a reconstruction of neither picture, shapes that don't fit.
    """
    pairs = []
    for name, picture in reconstructed.items():
        target = pictures.get(name.removesuffix(" mid"))
        if target is None:
            raise UserError(f"reconstruction {name!r}: of none of the pictures {', '.join(pictures)}")
        pairs.append(_likeness(picture, target, features, perceptual))
    if not pairs:
        raise UserError("reconstructed: none; pass t2b and b2t")
    near, alike = (torch.stack(terms).sum() for terms in zip(*pairs, strict=True))
    variation = torch.stack([flow_variation(level) for level in flows]).sum() if len(flows) else near.new_zeros(())
    loss = near + perceptual * alike + smoothness * variation
    return {"loss": loss, "reconstruction": near, "perceptual": alike, "variation": variation}


def selfdrsc_distillation(
    student: Tensor, teacher: Tensor, features: Features | None = None, *, perceptual: float = 0.1
) -> Tensor:
    """What stage 2 adds: Charb + perceptual Perc between frames that the student made of the middle of a patch, and
    those that the teacher made of all of it, cropped to the same place.

    Args:
        student: (N, n, C, H, W).
        teacher: same shape; no gradient goes to it.
        features: see `selfdrsc`.
        perceptual: weight of its term.

    Raises:
        UserError: other shapes.
    """
    _check(student, teacher)
    near, alike = _likeness(student.flatten(0, 1), teacher.flatten(0, 1), features, perceptual)
    return near + perceptual * alike


def selfdrsc_supervised(
    frames: Tensor,
    clean: Tensor,
    flows: Sequence[Tensor],
    features: Features | None = None,
    *,
    perceptual: float = 0.1,
    smoothness: float = 0.1,
) -> dict[str, Tensor]:
    """IFED's loss, the supervised baseline: Charb + perceptual Perc to clean frames + smoothness sum over levels TV.

    Args:
        frames: (N, n, C, H, W).
        clean: global-shutter frames of the same instants, same shape.
        flows: of all levels.
        features: see `selfdrsc`.
        perceptual: weight of its term.
        smoothness: of the variation of the flows.

    Returns:
        The terms of `selfdrsc`.

    Raises:
        UserError: other shapes.
    """
    _check(frames, clean)
    near, alike = _likeness(frames.flatten(0, 1), clean.flatten(0, 1), features, perceptual)
    variation = torch.stack([flow_variation(level) for level in flows]).sum() if len(flows) else near.new_zeros(())
    loss = near + perceptual * alike + smoothness * variation
    return {"loss": loss, "reconstruction": near, "perceptual": alike, "variation": variation}


def _check(x: Tensor, y: Tensor) -> None:
    check_floats(x=x, y=y)
    if x.shape != y.shape:
        raise UserError(f"shapes {tuple(x.shape)} and {tuple(y.shape)}: pass two of one shape")
