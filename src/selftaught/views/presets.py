"""The views of published recipes, ready to call.

Each function returns a :class:`~selftaught.views.ViewSet`: call it on an image for the views, iterate over it for the
pipelines. Where a paper resizes bicubically we stay bilinear, and its Gaussian radius is our sigma.
"""

from __future__ import annotations

from selftaught.errors import UserError
from selftaught.views.affine import RandomAffine
from selftaught.views.operation import Op, Pair
from selftaught.views.pipeline import Pipeline
from selftaught.views.spec import (
    CenterCrop,
    ColorJitter,
    Dihedral,
    GaussianBlur,
    Grayscale,
    HorizontalFlip,
    RandomCrop,
    RandomResizedCrop,
    Resize,
    Solarize,
)
from selftaught.views.viewset import ViewSet

__all__ = [
    "barlow_twins",
    "dcl",
    "grey",
    "mild",
    "multi_crop",
    "overhead",
    "patches",
    "plain",
    "simclr",
    "small",
]

Size = int | tuple[int, int]

BLUR_FROM = 96
"""Recipes that blur at ImageNet's size but not at CIFAR's blur from this many pixels on."""


def _two(ops: tuple[Op, ...], seed: int | None) -> ViewSet:
    return ViewSet([Pipeline(ops, name="view 1"), Pipeline(ops, name="view 2")], seed=seed)


def simclr(
    size: Size, *, strength: float = 1.0, scale: Pair = (0.08, 1.0), blur: float = 0.5, seed: int | None = None
) -> ViewSet:
    """Two equal views of SimCLR (Chen et al. 2020, appendix A).

    Crop, flip, colour jitter (0.8, 0.8, 0.8, 0.2) times ``strength`` with p 0.8, its four steps in random order, grey
    with p 0.2, blur with sigma from 0.1 to 2 pixels.

    Args:
        size: side of a view, or (height, width), in pixels.
        strength: multiplies the colour jitter (default 1; the paper takes 0.5 on CIFAR-10, without blur).
        scale: range of the crop's share of the image's area.
        blur: probability of the blur (default 0.5).
        seed: see :class:`ViewSet`.
    """
    jitter = ColorJitter(0.8 * strength, 0.8 * strength, 0.8 * strength, min(0.5, 0.2 * strength), p=0.8)
    ops = (RandomResizedCrop(size, scale), HorizontalFlip(), jitter, Grayscale(0.2))
    return _two((*ops, GaussianBlur(blur)) if blur else ops, seed)


def dcl(size: Size, *, scale: Pair = (0.2, 1.0), blur: float | None = None, seed: int | None = None) -> ViewSet:
    """Two equal views of decoupled contrastive learning (Yeh et al. 2022).

    Crop, flip, colour jitter (0.4, 0.4, 0.4, 0.1) with p 0.8, grey with p 0.2, and at ImageNet's size blur.

    Args:
        size: side of a view, or (height, width), in pixels.
        scale: range of the crop's share of the area (default 0.2 to 1; the reference code has 0.08 to 1).
        blur: probability of the blur; None (default) means 0.5 from 96 pixels on, else 0.
        seed: see :class:`ViewSet`.
    """
    side = size if isinstance(size, int) else min(size)
    chance = (0.5 if side >= BLUR_FROM else 0.0) if blur is None else blur
    ops = (RandomResizedCrop(size, scale), HorizontalFlip(), ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8), Grayscale(0.2))
    return _two((*ops, GaussianBlur(chance)) if chance else ops, seed)


def barlow_twins(size: Size, *, scale: Pair = (0.08, 1.0), seed: int | None = None) -> ViewSet:
    """The two unequal views of Barlow Twins (Zbontar et al. 2021), which BYOL, MoCo v3 and DINO share.

    Crop, flip, colour jitter (0.4, 0.4, 0.2, 0.1) with p 0.8, grey with p 0.2; the first view always blurs and never
    solarises, the second blurs with p 0.1 and solarises with p 0.2.

    Args:
        size: side of a view, or (height, width), in pixels.
        scale: range of the crop's share of the image's area.
        seed: see :class:`ViewSet`.
    """
    ops = (RandomResizedCrop(size, scale), HorizontalFlip(), ColorJitter(0.4, 0.4, 0.2, 0.1, p=0.8), Grayscale(0.2))
    first = Pipeline((*ops, GaussianBlur(1.0)), name="view 1")
    return ViewSet([first, Pipeline((*ops, GaussianBlur(0.1), Solarize(0.2)), name="view 2")], seed=seed)


def small(size: Size = 32, *, scale: Pair = (0.08, 1.0), grey: float = 0.2, seed: int | None = None) -> ViewSet:
    """Two equal views for small colour images such as CIFAR (32 pixels).

    Crop, flip, colour jitter (0.4, 0.4, 0.4, 0.1) with p 0.8, grey; no blur. Tiny ImageNet and STL-10 take size 64,
    ``scale=(0.2, 1)`` and ``grey=0.1``.

    Args:
        size: side of a view, or (height, width), in pixels.
        scale: range of the crop's share of the image's area.
        grey: probability of the grey view (default 0.2).
        seed: see :class:`ViewSet`.
    """
    jitter = ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8)
    return _two((RandomResizedCrop(size, scale), HorizontalFlip(), jitter, Grayscale(grey)), seed)


def grey(
    size: Size = 28, *, scale: Pair = (0.2, 1.0), strength: float = 0.4, flip: float = 0.5, seed: int | None = None
) -> ViewSet:
    """Two equal views for grey images such as Fashion-MNIST: crop, flip, brightness and contrast.

    Args:
        size: side of a view, or (height, width), in pixels.
        scale: range of the crop's share of the image's area.
        strength: of brightness and contrast, each with p 0.8 (default 0.4).
        flip: probability of the flip (default 0.5; take 0 for digits and letters).
        seed: see :class:`ViewSet`.
    """
    return _two((RandomResizedCrop(size, scale), HorizontalFlip(flip), ColorJitter(strength, strength, p=0.8)), seed)


def mild(
    size: Size = 32, *, degrees: float = 10.0, translate: float = 0.1, scale: Pair = (0.9, 1.1), seed: int | None = None
) -> ViewSet:
    """Two equal views that leave digits, letters and signs what they are: small turns, shifts and changes of size.

    Args:
        size: side of a view, or (height, width), in pixels.
        degrees: see :class:`RandomAffine`.
        translate: see :class:`RandomAffine`.
        scale: see :class:`RandomAffine`.
        seed: see :class:`ViewSet`.
    """
    return _two((Resize(size), RandomAffine(degrees, translate, scale)), seed)


def overhead(size: Size, *, scale: Pair = (0.25, 1.0), strength: float = 0.2, seed: int | None = None) -> ViewSet:
    """Two equal views for images taken from above (satellite, SAR, microscope): no top, no colours to lose.

    Crop, one of the eight dihedral positions, mild brightness and contrast with p 0.8, blur with p 0.5; any channels.

    Args:
        size: side of a view in pixels.
        scale: range of the crop's share of the image's area.
        strength: of brightness and contrast (default 0.2).
        seed: see :class:`ViewSet`.
    """
    crop = RandomResizedCrop(size, scale)
    turn: Op = Dihedral() if isinstance(crop.size, int) else HorizontalFlip()
    return _two((crop, turn, ColorJitter(strength, strength, p=0.8), GaussianBlur(0.5)), seed)


def plain(size: int, *, resize: int | None = None) -> ViewSet:
    """One deterministic view, for evaluation: the shorter side resized, then the middle cut out.

    Args:
        size: side of the view in pixels.
        resize: what the shorter side becomes before the cut (default ``size``; ImageNet's habit is 256 for 224).

    Raises:
        UserError: ``resize`` is smaller than ``size``.
    """
    if resize is not None and resize < size:
        raise UserError(f"plain: resize {resize} is smaller than the view {size}; give at least {size}")
    return ViewSet([Pipeline((Resize(resize or size), CenterCrop(size)), name="plain")], seed=0)


def patches(size: Size, *, seed: int | None = None) -> ViewSet:
    """One view for restoration: a random patch in one of the eight dihedral positions; any dtype, values untouched.

    Args:
        size: side of the patch in pixels. A patch that isn't square is flipped left to right only.
        seed: see :class:`ViewSet`.
    """
    crop = RandomCrop(size)
    turn: Op = Dihedral() if isinstance(crop.size, int) else HorizontalFlip()
    return ViewSet([Pipeline((crop, turn), name="patch")], seed=seed)


def multi_crop(
    size: Size = 224,
    local_size: Size = 96,
    *,
    n_global: int = 2,
    n_local: int = 6,
    global_scale: Pair = (0.14, 1.0),
    local_scale: Pair = (0.05, 0.14),
    strength: float = 1.0,
    seed: int | None = None,
) -> ViewSet:
    """A few large and several small crops of one image (SwAV, Caron et al. 2020): 2 x 224 + 6 x 96 by default.

    Colour, grey and blur as :func:`simclr`.

    Args:
        size: side of the large crops in pixels.
        local_size: side of the small crops in pixels.
        n_global: number of large crops.
        n_local: number of small crops.
        global_scale: share of the area of the large crops.
        local_scale: share of the area of the small crops.
        strength: multiplies the colour jitter.
        seed: see :class:`ViewSet`.

    Raises:
        UserError: no crop at all, or a negative number.
    """
    if n_global < 0 or n_local < 0 or n_global + n_local == 0:
        raise UserError(f"multi_crop: n_global {n_global} and n_local {n_local} must leave at least one crop")
    large = simclr(size, strength=strength, scale=global_scale)[0].ops
    little = simclr(local_size, strength=strength, scale=local_scale)[0].ops
    views = [Pipeline(large, name=f"global {i + 1}") for i in range(n_global)]
    return ViewSet(views + [Pipeline(little, name=f"local {i + 1}") for i in range(n_local)], seed=seed)
