"""SimMIM: the absolute error of the hidden pixels."""

from __future__ import annotations

from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_floats, in_float32

__all__ = ["simmim"]


@in_float32
def simmim(reconstruction: Tensor, images: Tensor, mask: Tensor) -> Tensor:
    """SimMIM (Xie et al., CVPR 2022, arXiv 2111.09886, eq. 1): the mean absolute error of the hidden pixels.

        L = sum |x - y| M / (sum M + 1e-5) / C,        M[b, 1, h, w] = 1 where a pixel was hidden

    The mask has one channel and the images C of them, hence the division by C; the 1e-5 is the official code's.

    Args:
        reconstruction: y (B, C, H, W).
        images: x (B, C, H, W), normalised as the network saw them; constants.
        mask: M (B, H, W) or (B, 1, H, W), True or 1 where hidden.

    Returns:
        A scalar >= 0; 0 where nothing is hidden.

    Raises:
        UserError: (a ``ValueError``) shapes that don't fit, integers where values are needed.
    """
    check_floats(reconstruction=reconstruction, images=images)
    if images.dim() != 4 or reconstruction.shape != images.shape or 0 in images.shape:
        shapes = f"{tuple(reconstruction.shape)} and {tuple(images.shape)}"
        raise UserError(f"reconstruction and images need one shape (B, C, H, W), got {shapes}")
    batch, channels, height, width = images.shape
    if tuple(mask.shape) not in ((batch, height, width), (batch, 1, height, width)):
        raise UserError(f"the mask needs the shape {(batch, height, width)}, got {tuple(mask.shape)}")
    hidden = mask.to(images.dtype).reshape(batch, 1, height, width)
    error = (reconstruction - images.detach()).abs() * hidden
    return error.sum() / (hidden.sum() + 1e-5) / channels
