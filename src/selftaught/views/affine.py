"""Small turns, shifts and changes of size: what leaves a digit, a letter or a scan what it is."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from selftaught.errors import UserError
from selftaught.views.operation import Drawn, Op, checked_range, executor, freeze

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["RandomAffine"]


@dataclasses.dataclass(frozen=True, repr=False)
class RandomAffine(Op):
    """A turn, a shift and a change of size about the middle, all drawn evenly; the size of the image stays.

    Images are interpolated bilinearly, masks and depths take the nearest pixel; beyond its border an image goes on as
    its outermost pixel. uint8 and floating-point images.

    Args:
        degrees: largest turn to either side (default 10); 0 to 180.
        translate: largest shift to either side, as a share of the height and the width (default 0.1).
        scale: range of the factor by which the image grows (default 0.9 to 1.1).

    Raises:
        UserError: numbers out of range.
    """

    degrees: float = 10.0
    translate: float = 0.1
    scale: tuple[float, float] = (0.9, 1.1)

    columns: ClassVar = ("turn", "right", "down", "factor")
    geometric: ClassVar = True
    draws: ClassVar = 4
    floats: ClassVar = True

    def __post_init__(self) -> None:
        for name, value, most in (("degrees", self.degrees, 180), ("translate", self.translate, 1)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
                raise UserError(f"RandomAffine: {name} must lie from 0 to {most}, got {value!r}")
        scale = checked_range("RandomAffine", "scale", self.scale, 0.1, 10.0)
        freeze(self, degrees=float(self.degrees), translate=float(self.translate), scale=scale)

    def draw(self, u: Any, height: Any, width: Any) -> Drawn:
        """Degrees anticlockwise, shares of the width to the right and of the height downwards, and the factor."""
        low, high = self.scale
        turn, right, down = (
            (2 * u[k] - 1) * most for k, most in enumerate((self.degrees, self.translate, self.translate))
        )
        return (turn, right, down, low + u[3] * (high - low)), height, width


def affine(x: Tensor, values: Any, mode: str) -> Tensor:
    """Images turned, shifted and enlarged about their middle.

    Args:
        x: (N, C, H, W) floating-point.
        values: (N, 4): degrees anticlockwise, shift to the right and downwards as shares, factor of growth.
        mode: "bilinear" or "nearest".
    """
    import torch

    columns = torch.as_tensor(np.asarray(values, dtype=np.float64), device=x.device).T
    turn, right, down, factor = columns[..., None, None]
    height, width = x.shape[2:]
    across = torch.arange(width, device=x.device, dtype=torch.float64) + 0.5 - width / 2 - right * width
    along = torch.arange(height, device=x.device, dtype=torch.float64)[:, None] + 0.5 - height / 2 - down * height
    cosine, sine = torch.deg2rad(turn).cos() / factor, torch.deg2rad(turn).sin() / factor
    # where each pixel of the result comes from, in shares of the half width and height
    places = ((across * cosine - along * sine) * 2 / width, (across * sine + along * cosine) * 2 / height)
    grid = torch.stack(torch.broadcast_tensors(*places), dim=-1).to(x.dtype)
    return torch.nn.functional.grid_sample(x, grid, mode=mode, padding_mode="border", align_corners=False)


@executor(RandomAffine, "image", device=True)
def _image_batch(x: Tensor, op: RandomAffine, values: Any) -> Tensor:
    if x.is_floating_point():
        return affine(x, values, "bilinear")
    return affine(x.float(), values, "bilinear").round().to(x.dtype)


@executor(RandomAffine, "image")
def _image(x: np.ndarray, op: RandomAffine, values: Any) -> np.ndarray:
    import torch

    batch = torch.from_numpy(np.ascontiguousarray(x)).permute(2, 0, 1)[None]
    return np.ascontiguousarray(_image_batch(batch, op, [values])[0].permute(1, 2, 0).numpy())


@executor(RandomAffine, "mask", "depth", device=True)
def _mask_batch(x: Tensor, op: RandomAffine, values: Any) -> Tensor:
    """Float64 holds every class number, and every float32 depth, as it is."""
    return affine(x.double()[:, None], values, "nearest")[:, 0].to(x.dtype)


@executor(RandomAffine, "mask", "depth")
def _mask(x: np.ndarray, op: RandomAffine, values: Any) -> np.ndarray:
    import torch

    return _mask_batch(torch.from_numpy(np.ascontiguousarray(x))[None], op, [values])[0].numpy()
