"""Discrete transformations that are labels of their own: rotations, colour permutations, and their products.

A *set* has M transformations, the first always the identity. They act on batched tensors, on whatever device these lie;
:func:`copies` makes the M copies of every image, interleaved: row b*M + j is transformation j of image b. The sets and
their order are those of self-supervised label augmentation (Lee et al., ICML 2020, arXiv 1910.05872).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from itertools import product

import torch
from torch import Tensor

from selftaught.errors import UserError

__all__: list[str] = []  # reached as views.transformations.NAME

Transformation = Callable[[Tensor], Tensor]

COLOUR_ORDERS = {
    "RGB": (0, 1, 2),
    "RBG": (0, 2, 1),
    "GRB": (1, 0, 2),
    "GBR": (1, 2, 0),
    "BRG": (2, 0, 1),
    "BGR": (2, 1, 0),
}
"""Channel k of the result is channel ``order[k]`` of the image."""

_CYCLIC = ("RGB", "GBR", "BRG")
_ALL = tuple(COLOUR_ORDERS)
_QUARTERS, _HALVES, _UPRIGHT = (0, 1, 2, 3), (0, 2), (0,)

_SETS: dict[str, tuple[tuple[int, ...], tuple[str, ...]]] = {
    "identity": (_UPRIGHT, ("RGB",)),
    "rotation": (_QUARTERS, ("RGB",)),
    "rotation2": (_HALVES, ("RGB",)),
    "color_perm": (_UPRIGHT, _ALL),
    "color_perm3": (_UPRIGHT, _CYCLIC),
    "rot_color_perm6": (_HALVES, _CYCLIC),
    "rot_color_perm12": (_QUARTERS, _CYCLIC),
    "rot_color_perm24": (_QUARTERS, _ALL),
}

TRANSFORMATION_SETS = tuple(_SETS)
"""Names of the sets; in products the rotation is the slower index."""


def rotate(images: Tensor, quarters: int) -> Tensor:
    """Turn images counter-clockwise.

    Args:
        images: (..., H, W), square where ``quarters`` is odd.
        quarters: quarter turns.

    Raises:
        UserError: an odd number of quarter turns of images that aren't square (their shape would change).
    """
    if quarters % 2 and images.shape[-1] != images.shape[-2]:
        height, width = images.shape[-2:]
        raise UserError(f"rotation: quarter turns need square images, got {height}x{width}; crop, or use rotation2")
    return torch.rot90(images, quarters, (-2, -1))


def permute_colours(images: Tensor, order: str) -> Tensor:
    """Exchange colour channels.

    Args:
        images: (N, 3, H, W), red, green, blue.
        order: a key of :data:`COLOUR_ORDERS`, such as ``"GBR"``: the result's red channel is the image's green one.

    Raises:
        UserError: an unknown order, or images without exactly three channels.
    """
    if order not in COLOUR_ORDERS:
        raise UserError(f"colour order {order!r}: choose {', '.join(COLOUR_ORDERS)}")
    if images.shape[1] != 3:
        raise UserError(f"colour permutations need 3 channels, the images have {images.shape[1]}; use rotation")
    return images if order == "RGB" else images[:, list(COLOUR_ORDERS[order])]


class _Turned:
    """A rotation, then a colour permutation."""

    def __init__(self, quarters: int, order: str) -> None:
        self.quarters, self.order = quarters, order

    def __call__(self, images: Tensor) -> Tensor:
        images = rotate(images, self.quarters) if self.quarters else images
        return permute_colours(images, self.order) if self.order != "RGB" else images

    def __repr__(self) -> str:
        return f"{90 * self.quarters} degrees {self.order}"


def transformations(name: str | Sequence[Transformation]) -> tuple[Transformation, ...]:
    """The transformations of a set, the identity first.

    Args:
        name: one of :data:`TRANSFORMATION_SETS`; ``"module:name"``, a list of callables (or a function that returns
            one) to import; or the callables themselves, each from (N, C, H, W) to the same shape.

    Raises:
        UserError: an unknown set, a module that can't be imported, something that isn't callable.
    """
    if not isinstance(name, str):
        return _checked(name, "transform")
    if name in _SETS:
        quarters, orders = _SETS[name]
        return tuple(_Turned(turn, order) for turn, order in product(quarters, orders))
    module, colon, attribute = name.partition(":")
    if not colon:
        raise UserError(f"transform={name}: choose {', '.join(_SETS)}, or give module:name of your own list")
    try:
        own = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"transform={name}: can't be imported ({error}); give module:name of a list") from error
    return _checked(own() if callable(own) else own, name)


def _checked(chosen: object, name: str) -> tuple[Transformation, ...]:
    if not isinstance(chosen, Sequence) or not chosen or not all(callable(one) for one in chosen):
        raise UserError(f"transform={name}: a list of one or more callables is needed, the identity first")
    return tuple(chosen)


def copies(images: Tensor, transform: str | Sequence[Transformation]) -> Tensor:
    """All M transformed copies of every image, interleaved.

    Args:
        images: (B, C, H, W), any dtype and device.
        transform: see :func:`transformations`.

    Returns:
        (B*M, C, H, W), in the memory format of ``images``; row b*M + j is transformation j of image b.

    Raises:
        UserError: a transformation that the images don't admit, or one that changes their shape.
    """
    if images.ndim != 4:
        raise UserError(f"transform: images are (N, C, H, W), got {tuple(images.shape)}")
    chosen = transformations(transform)
    last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
    count, channels, height, width = images.shape
    shape = (count, len(chosen), height, width, channels) if last else (count, len(chosen), channels, height, width)
    out = images.new_empty(shape)
    target = out.permute(0, 1, 4, 2, 3) if last else out
    made = [function(images) for function in chosen]
    for place, one in enumerate(made):
        if one.shape != images.shape:
            was, now = tuple(images.shape), tuple(one.shape)
            raise UserError(f"transform: number {place} turns images {was} into {now}; it must keep their shape")
    if any(one.requires_grad for one in made):
        return torch.stack(made, 1).flatten(0, 1)
    for place, one in enumerate(made):
        target[:, place].copy_(one)
    return target.flatten(0, 1)


def random_shift(images: Tensor, pixels: int = 4, fill: Tensor | float = 0.0) -> Tensor:
    """CIFAR's random crop: a border of ``pixels`` on every side, then a box of the old size, drawn for every image.

    Drawn with torch's global generator on the images' device.

    Args:
        images: (N, C, H, W) floating point.
        pixels: width of the border; 0 returns the images.
        fill: value of the border, a number or (C,) (black, where images are normalised).

    Returns:
        (N, C, H, W).

    Raises:
        UserError: a negative border.
    """
    if pixels < 0:
        raise UserError(f"random_shift: a border of {pixels} pixels; give 0 or more")
    if pixels == 0:
        return images
    count, _, height, width = images.shape
    device = images.device
    down, right = (torch.rand(2, count, device=device) * (2 * pixels + 1)).long().sub_(pixels)
    rows = torch.arange(height, device=device) + down[:, None]
    columns = torch.arange(width, device=device) + right[:, None]
    sample = torch.arange(count, device=device)[:, None, None]
    shifted = images.permute(0, 2, 3, 1)[
        sample, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None, :]
    ].permute(0, 3, 1, 2)
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    border = fill.view(-1, 1, 1) if isinstance(fill, Tensor) else images.new_tensor(fill)
    return torch.where(inside[:, None], shifted, border.to(images))


def cutout(images: Tensor, side: int) -> Tensor:
    """Cutout (DeVries and Taylor 2017, arXiv 1708.04552): a square of zeros at an even-drawn centre of every image.

    The square may reach over the edge. On normalised images 0 is the mean colour.

    Args:
        images: (N, C, H, W) floating point.
        side: side of the square in pixels, 1 or more.

    Raises:
        UserError: a side below 1.
    """
    if side < 1:
        raise UserError(f"cutout: a square of {side} pixels; give 1 or more")
    count, _, height, width = images.shape
    u = torch.rand(2, count, 1, device=images.device)
    masks = []
    for chance, length in zip(u, (height, width), strict=True):
        start = (chance * length).floor() - side // 2
        place = torch.arange(length, device=images.device)
        masks.append((place >= start) & (place < start + side))
    hidden = masks[0][:, None, :, None] & masks[1][:, None, None, :]
    return images.masked_fill(hidden, 0)


def cutmix(images: Tensor, alpha: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """CutMix (Yun et al., ICCV 2019, arXiv 1905.04899, eq. 1-2): one box of every image comes from a partner.

    lambda ~ Beta(alpha, alpha), one box for the batch with share 1 - lambda of the area, centre drawn evenly; lambda is
    then the share that was really kept.

    Args:
        images: (N, C, H, W).
        alpha: parameter of the Beta distribution, above 0.

    Returns:
        the mixed images; the partner's place (N,) int64 of each; the kept share lambda, a scalar tensor.

    Raises:
        UserError: an alpha that isn't above 0.
    """
    if not alpha > 0:
        raise UserError(f"cutmix: alpha={alpha} must be above 0")
    height, width = images.shape[-2:]
    device = images.device
    partner = torch.rand(len(images), device=device).argsort()
    kept = torch.distributions.Beta(
        torch.tensor(float(alpha), device=device), torch.tensor(float(alpha), device=device)
    ).sample()
    centre = torch.rand(2, device=device)
    inside = []
    for middle, length in zip(centre, (height, width), strict=True):
        half = length * (1 - kept).sqrt() / 2
        place = torch.arange(length, device=device) + 0.5
        inside.append((place - (middle * length)).abs() < half)
    box = inside[0][:, None] & inside[1][None, :]
    return torch.where(box, images[partner], images), partner, 1 - box.float().mean()


def ten_crop(images: Tensor, share: float = 0.875) -> Tensor:
    """The four corners and the middle, and their mirror images, each resized to the image's own size.

    Args:
        images: (N, C, H, W) floating point.
        share: side of a crop as a share of the image's, in (0, 1].

    Returns:
        (N*10, C, H, W), interleaved: row 10 b + k is crop k of image b; k = 0..4 upper left, upper right, lower left,
        lower right, middle; 5..9 the same mirrored.

    Raises:
        UserError: a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise UserError(f"ten_crop: share={share} must be above 0 and at most 1")
    height, width = images.shape[-2:]
    h, w = max(1, round(height * share)), max(1, round(width * share))
    corners = [(0, 0), (0, width - w), (height - h, 0), (height - h, width - w), ((height - h) // 2, (width - w) // 2)]
    crops = torch.stack([images[..., top : top + h, left : left + w] for top, left in corners], 1)
    ten = torch.cat([crops, crops.flip(-1)], 1).flatten(0, 1)
    return torch.nn.functional.interpolate(ten, (height, width), mode="bilinear", align_corners=False)
