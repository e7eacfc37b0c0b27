"""Reflections in a pane of glass: a scene behind it, another one mirrored in it.

Three recipes, each from a transmission T, a reflection R and numbers that are drawn; R~ is R out of focus:

    ceilnet      M = T + R~;  where max M > 1:  R~ = clip(R~ - f (mean of M > 1, minus 1), 0, 1), M = clip(T + R~)
    perceptual   the same in linear light (gamma 2.2) and channel by channel; R~ times a vignette, T times alpha
    linear       M = alpha T + (1 - alpha) R~
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from selftaught.errors import UserError
from selftaught.views.operation import Drawn, Op, Pair, checked_range, executor, freeze

__all__ = [
    "REFLECTIONS",
    "Blend",
    "GlassDraw",
    "Reflection",
    "covered",
    "gaussian_blur",
    "reflect",
    "reflect_ceilnet",
    "reflect_linear",
    "reflect_perceptual",
    "vignette",
]

Recipe = Literal["perceptual", "ceilnet", "linear"]
REFLECTIONS: tuple[str, ...] = ("perceptual", "ceilnet", "linear")
"""The recipes' names: Zhang et al. (CVPR 2018), CEILNet (ICCV 2017), a plain mixture."""
GAMMA = 2.2
SIDE, MARGIN = 560, 10
_RANGES: dict[str, tuple[Pair, Pair, Pair]] = {
    "perceptual": ((1.0, 5.0), (1.08, 1.18), (0.8, 1.0)),
    "ceilnet": ((2.0, 5.0), (1.3, 1.3), (1.0, 1.0)),
    "linear": ((1.0, 5.0), (0.0, 0.0), (0.6, 0.9)),
}


class Blend(NamedTuple):
    """What one sees through the glass, and its two layers; each in the shape and type that was given.

    Attributes:
        blended: M in [0, 1].
        transmission: T as it was given.
        reflection: R~ as it was added, in [0, 1] (of "perceptual" with its gamma again).
    """

    blended: Any
    transmission: Any
    reflection: Any


def vignette(side: int = SIDE, reach: float = 3.0) -> np.ndarray:
    """A bright middle that falls off to the corners, (side, side) float64 with the maximum 1.

    The root of the outer product of a normal distribution's masses in ``side`` bins, from ``-reach`` to ``reach``
    deviations (the middles of the first and last bin lie there, or nearly so).

    Args:
        side: in pixels (default 560).
        reach: in standard deviations (default 3).
    """
    half = reach + (2 * reach + 1) / side / 2
    edges = np.linspace(-half, half, side + 1)
    mass = np.diff([0.5 * math.erf(edge / math.sqrt(2)) for edge in edges])
    falls = np.sqrt(np.outer(mass, mass))
    return falls / falls.max()


def gaussian_blur(image: Any, sigma: Any, size: int | None = None, *, border: str = "mirror") -> Any:
    """An image convolved with a Gaussian of sum 1.

    Args:
        image: (H, W, C) array or (N, C, H, W) tensor of floats.
        sigma: standard deviation in pixels, one number or one for each image.
        size: side of the kernel, odd; None: 2 ceil(2 sigma) + 1.
        border: "mirror" (the edge not repeated) or "zero".

    Raises:
        UserError: an image smaller than the kernel reaches, a sigma that isn't above 0.
    """
    x, back = _tensor(image)
    rows = [_blurred(one, value, size, border) for one, value in zip(x.split(1), _each(sigma, x), strict=True)]
    return back(_torch().cat(rows))


def reflect_ceilnet(
    transmission: Any, reflection: Any, *, sigma: Any, factor: float | Any = 1.3, size: int = 11
) -> Blend:
    """CEILNet's recipe (Fan et al., ICCV 2017).

    Args:
        transmission: T, (H, W, C) array or (N, C, H, W) tensor in [0, 1].
        reflection: R, of the same shape.
        sigma: of the blur, 2 to 5 there; one number or one for each image. Its border is zero.
        factor: what the overexposure is multiplied by before it is taken off the reflection.
        size: side of the blur's kernel.

    Raises:
        UserError: the two differ in shape.
    """
    t, r, back = _pair(transmission, reflection)
    blurred = gaussian_blur(r, sigma, size, border="zero")
    mixed = t + blurred
    over = mixed > 1
    counts = over.flatten(1).sum(1)
    means = (mixed * over).flatten(1).sum(1) / counts.clamp_min(1)
    excess = ((means - 1) * _values(factor, t)).view(-1, 1, 1, 1)
    any_over = (counts > 0).view(-1, 1, 1, 1)
    taken = (blurred - excess).clamp(0, 1).where(any_over, blurred)
    return Blend(back((t + taken).clamp(0, 1)), transmission, back(taken))


def reflect_perceptual(
    transmission: Any,
    reflection: Any,
    *,
    sigma: Any,
    factor: float | Any = 1.13,
    alpha: float | Any = 0.9,
    down: float | Any = 0.5,
    across: float | Any = 0.5,
) -> Blend:
    """The recipe of Zhang et al. (CVPR 2018), with the reflection layer and the attenuation of the UHDRR benchmark.

        t = T^2.2,  r = blur(R^2.2);   per channel m = max(1, mean of (t + r) over t + r > 1)
        R~ = v clip(r - f (m - 1), 0, 1),   M = clip((R~ + alpha t)^(1/2.2), 0, 1)

    Args:
        transmission: T, (H, W, C) array or (N, C, H, W) tensor in [0, 1].
        reflection: R, of the same shape.
        sigma: of the blur, 1 to 5; this and what follows is one number or one for each image.
        factor: f, 1.08 to 1.18.
        alpha: attenuation of the transmission, 0.8 to 1.
        down: where the image's window lies in the vignette v, 0 (top) to below 1.
        across: 0 (left) to below 1. The vignette is 560 pixels wide, or 1.4 times the image where that is more.

    Raises:
        UserError: the two differ in shape.
    """
    t, r, back = _pair(transmission, reflection)
    light = t.clamp_min(0).pow(GAMMA)
    blurred = gaussian_blur(r.clamp_min(0).pow(GAMMA), sigma)
    mixed = light + blurred
    over = mixed > 1
    means = (mixed * over).sum((2, 3), keepdim=True) / over.sum((2, 3), keepdim=True).clamp_min(1)
    excess = (means.clamp_min(1) - 1) * _values(factor, t).view(-1, 1, 1, 1)
    window = _windows(t, _each(down, t), _each(across, t))
    layer = (blurred - excess).clamp(0, 1) * window
    seen = layer + _values(alpha, t).view(-1, 1, 1, 1) * light
    return Blend(back(seen.pow(1 / GAMMA).clamp(0, 1)), transmission, back(layer.pow(1 / GAMMA)))


def reflect_linear(transmission: Any, reflection: Any, *, alpha: float | Any = 0.75, sigma: Any = 2.0) -> Blend:
    """M = alpha T + (1 - alpha) R~; the layer is (1 - alpha) R~.

    Args:
        transmission: T, (H, W, C) array or (N, C, H, W) tensor in [0, 1].
        reflection: R, of the same shape.
        alpha: share of the transmission; one number or one for each image.
        sigma: of the blur.

    Raises:
        UserError: the two differ in shape.
    """
    t, r, back = _pair(transmission, reflection)
    share = _values(alpha, t).view(-1, 1, 1, 1)
    layer = (1 - share) * gaussian_blur(r, sigma)
    return Blend(back(share * t + layer), transmission, back(layer))


def reflect(
    transmission: Any,
    reflection: Any,
    recipe: str = "perceptual",
    *,
    sigma: Any,
    factor: Any,
    alpha: Any,
    down: Any,
    across: Any,
) -> Blend:
    """A recipe by its name, with the numbers that :class:`GlassDraw` draws; those that it doesn't use are ignored.

    Raises:
        UserError: no such recipe; the two differ in shape.
    """
    if recipe == "ceilnet":
        return reflect_ceilnet(transmission, reflection, sigma=sigma, factor=factor)
    if recipe == "linear":
        return reflect_linear(transmission, reflection, alpha=alpha, sigma=sigma)
    if recipe != "perceptual":
        raise UserError(f"recipe {recipe!r}: it may be {', '.join(REFLECTIONS)}")
    return reflect_perceptual(
        transmission, reflection, sigma=sigma, factor=factor, alpha=alpha, down=down, across=across
    )


def covered(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The middle of an image (H, W, C), resized so that it just covers ``height`` and ``width``."""
    import cv2

    scale = max(height / image.shape[0], width / image.shape[1])
    size = (max(width, round(image.shape[1] * scale)), max(height, round(image.shape[0] * scale)))
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    resized = resized.reshape(size[1], size[0], -1)
    top, left = (size[1] - height) // 2, (size[0] - width) // 2
    return resized[top : top + height, left : left + width]


# ---- operations ----------------------------------------------------------------------------------------------------
@dataclasses.dataclass(frozen=True, repr=False)
class GlassDraw(Op):
    """Draw the numbers of a reflection and report them; the image stays as it is. For methods that blend two streams.

    Args:
        recipe: "perceptual" (default), "ceilnet" or "linear".
        sigma: (low, high) of the blur in pixels; None: 1 to 5, of ceilnet 2 to 5.
        alpha: (low, high) of the transmission's share; None: 0.8 to 1, of linear 0.6 to 0.9.

    Raises:
        UserError: an unknown recipe, a range out of its limits.
    """

    recipe: Recipe = "perceptual"
    sigma: Pair | None = None
    alpha: Pair | None = None

    columns: ClassVar = ("sigma", "factor", "alpha", "down", "across")
    draws: ClassVar = 5
    floats: ClassVar = True
    facts: ClassVar = ("sigma", "factor", "alpha", "down", "across")

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.recipe not in _RANGES:
            raise UserError(f"{name}: recipe {self.recipe!r}: it may be {', '.join(REFLECTIONS)}")
        sigma, _, alpha = _RANGES[self.recipe]
        sigma = checked_range(name, "sigma", sigma if self.sigma is None else self.sigma, 0.1, 100)
        alpha = checked_range(name, "alpha", alpha if self.alpha is None else self.alpha, 0, 1)
        freeze(self, sigma=sigma, alpha=alpha)

    def draw(self, u: Any, height: Any, width: Any) -> Drawn:
        """Draw all five evenly."""
        ranges = (self.sigma, _RANGES[self.recipe][1], self.alpha, (0.0, 1.0), (0.0, 1.0))
        return tuple(low + u[k] * (high - low) for k, (low, high) in enumerate(ranges)), height, width  # type: ignore[misc]


@dataclasses.dataclass(frozen=True, repr=False)
class Reflection(GlassDraw):
    """A pane of glass before the image, that mirrors the image itself (left and right exchanged); arguments as there.

    Two pictures are blended by :func:`reflect`. Floats in [0, 1]; uint8 images go through them.
    """


def _told(values: Any) -> dict[str, Any]:
    return {name: np.float32(value) for name, value in zip(GlassDraw.columns, values, strict=True)}


def _told_batch(x: Any, values: np.ndarray) -> dict[str, Any]:
    numbers = _torch().from_numpy(values.astype(np.float32)).to(x.device)
    return dict(zip(GlassDraw.columns, numbers.unbind(1), strict=True))


@executor(GlassDraw, "image")
def _drawn(x: np.ndarray, op: GlassDraw, values: list[float]) -> tuple[np.ndarray, dict[str, Any]]:
    return x, _told(values)


@executor(GlassDraw, "image", device=True)
def _drawn_batch(x: Any, op: GlassDraw, values: np.ndarray) -> tuple[Any, dict[str, Any]]:
    return x, _told_batch(x, values)


@executor(Reflection, "image")
def _mirrored(x: np.ndarray, op: Reflection, values: list[float]) -> tuple[np.ndarray, dict[str, Any]]:
    unit = x.astype(np.float32) / np.float32(255) if x.dtype == np.uint8 else x
    numbers = dict(zip(GlassDraw.columns, values, strict=True))
    made = reflect(unit, np.ascontiguousarray(unit[:, ::-1]), op.recipe, **numbers).blended
    return (np.rint(made * 255).astype(np.uint8) if x.dtype == np.uint8 else made), _told(values)


@executor(Reflection, "image", device=True)
def _mirrored_batch(x: Any, op: Reflection, values: np.ndarray) -> tuple[Any, dict[str, Any]]:
    torch = _torch()
    eight = not x.is_floating_point()
    unit = x.float() / 255 if eight else x
    numbers = {name: torch.from_numpy(values[:, k].copy()) for k, name in enumerate(GlassDraw.columns)}
    made = reflect(unit, unit.flip(3), op.recipe, **numbers).blended
    return ((made * 255).round().to(x.dtype) if eight else made), _told_batch(x, values)


# ---- tensors -------------------------------------------------------------------------------------------------------
def _torch() -> Any:
    import torch

    return torch


def _tensor(image: Any) -> tuple[Any, Any]:
    """An image as (N, C, H, W), and what brings a result back to its form."""
    torch = _torch()
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.dtype.kind != "f":
            raise UserError(f"an image is (H, W, C) of floats in [0, 1], got {image.dtype} of shape {image.shape}")
        x = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
        return x, lambda y: np.ascontiguousarray(y[0].numpy().transpose(1, 2, 0))
    if image.ndim != 4 or not image.is_floating_point():
        raise UserError(f"images are (N, C, H, W) of floats in [0, 1], got {image.dtype} of shape {tuple(image.shape)}")
    return image, lambda y: y


def _pair(transmission: Any, reflection: Any) -> tuple[Any, Any, Any]:
    if tuple(transmission.shape) != tuple(reflection.shape):
        shapes = f"{tuple(transmission.shape)} and {tuple(reflection.shape)}"
        raise UserError(f"transmission and reflection need one shape, got {shapes}")
    t, back = _tensor(transmission)
    return t, _tensor(reflection)[0], back


def _values(value: Any, x: Any) -> Any:
    """One number for each image of a batch, (N,)."""
    found = _torch().as_tensor(value, dtype=x.dtype, device=x.device)
    if found.ndim == 0:
        found = found.expand(len(x))
    if tuple(found.shape) != (len(x),):
        raise UserError(f"one number, or one for each of {len(x)} images; got the shape {tuple(found.shape)}")
    return found


def _each(value: Any, x: Any) -> list[float]:
    found = _torch().as_tensor(value, dtype=_torch().float64).reshape(-1).tolist()
    if len(found) not in (1, len(x)):
        raise UserError(f"one number, or one for each of {len(x)} images; got {len(found)}")
    return found * len(x) if len(found) == 1 else found


def _blurred(x: Any, sigma: float, size: int | None, border: str) -> Any:
    from torch.nn import functional as F

    if not sigma > 0:
        raise UserError(f"sigma {sigma:g}: above 0")
    size = 2 * math.ceil(2 * sigma) + 1 if size is None else size
    radius = size // 2
    if border == "mirror" and radius >= min(x.shape[2:]):
        raise UserError(f"an image of {x.shape[3]} x {x.shape[2]} pixels is smaller than a blur of sigma {sigma:g}")
    places = _torch().arange(size, dtype=_torch().float64, device="cpu") - radius
    kernel = (-(places**2) / (2 * sigma**2)).exp()
    kernel = (kernel / kernel.sum()).to(x)
    planes = x.movedim(1, 0)
    mode = {"mirror": "reflect", "zero": "constant"}[border]
    padded = F.pad(planes, (radius,) * 4, mode=mode)
    rows = F.conv2d(padded, kernel.view(1, 1, size, 1))
    return F.conv2d(rows, kernel.view(1, 1, 1, size)).movedim(0, 1)


def _windows(x: Any, down: list[float], across: list[float]) -> Any:
    """The part of the vignette before each image, (N, 1, H, W)."""
    height, width = x.shape[2:]
    side = max(SIDE, math.ceil(1.4 * max(height, width)))
    whole = _torch().from_numpy(vignette(side)).to(x)
    parts = []
    for y, z in zip(down, across, strict=True):
        top, left = (math.floor(u * (side - MARGIN - length)) for u, length in ((y, height), (z, width)))
        parts.append(whole[None, None, top : top + height, left : left + width])
    return _torch().cat(parts)
