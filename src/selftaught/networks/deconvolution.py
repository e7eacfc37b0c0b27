"""Non-blind deblurring as one takes it away: a network with a kernel, in tiles; and the classical methods."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from selftaught.errors import UserError
from selftaught.networks.infwide import INFWIDEOutput
from selftaught.networks.tiling import tiled
from selftaught.networks.wiener import normalised_kernel, richardson_lucy, wiener

__all__ = ["ClassicalDeconvolution", "Deconvolver", "extended"]


class ClassicalDeconvolution(nn.Module):
    """Wiener's filter or Richardson and Lucy's iteration; nothing is learnt.

    Args:
        kind: "wiener" or "richardson-lucy".
        nsr: of Wiener's filter: "official" (estimated), or a number.
        pad: of Wiener's filter.
        iterations: of Richardson-Lucy.

    Raises:
        UserError: another kind.
    """

    def __init__(
        self, kind: str, *, nsr: float | str = "official", pad: str = "replicate", iterations: int = 30
    ) -> None:
        super().__init__()
        if kind not in ("wiener", "richardson-lucy"):
            raise UserError(f"kind={kind!r}: it may be wiener or richardson-lucy")
        self.kind, self.nsr, self.pad, self.iterations = kind, nsr, pad, iterations

    def forward(self, y: Tensor, kernel: Tensor) -> INFWIDEOutput:
        """Blurred images (N, C, H, W) and kernels (N, 1, h, w)."""
        if self.kind == "wiener":
            return INFWIDEOutput([wiener(y, kernel, nsr=self.nsr, pad=self.pad)], y)  # type: ignore[arg-type]
        return INFWIDEOutput([richardson_lucy(y, kernel, iterations=self.iterations)], y)


class Deconvolver(nn.Module):
    """A network with a kernel between images in [0, 1].

    Args:
        network: (N, C, H, W) and (N, 1, h, w) to an :class:`INFWIDEOutput`.
        fixed: kernel (h, w) of all images that come with none; None: each brings its own.
        extend: mirror an image to twice its size first, and cut out the middle again.
    """

    fixed: Tensor | None

    def __init__(self, network: nn.Module, fixed: np.ndarray | None = None, *, extend: bool = False) -> None:
        super().__init__()
        self.network, self.extend = network, extend
        self.register_buffer("fixed", None if fixed is None else torch.from_numpy(fixed)[None, None])

    def forward(self, image: Tensor, kernel: Tensor | None = None, tile: int = 0) -> Tensor:
        """Sharp images; ``tile`` is the largest side of one pass, 0 for no bound.

        Raises:
            UserError: no kernel.
        """
        kernel = self.fixed if kernel is None else kernel
        if kernel is None:
            raise UserError("a blurred image needs its kernel: give one (N, 1, h, w), or train with --kernel-file FILE")
        used = normalised_kernel(kernel.to(image)).expand(image.shape[0], -1, -1, -1)
        context = 2 * max(used.shape[-2:]) + 32

        def one(part: Tensor) -> Tensor:
            return self._one(part, used)

        if tile and max(image.shape[-2:]) > tile:
            return tiled(one, image, tile=max(tile, 4 * context), overlap=context)
        return one(image)

    def _one(self, image: Tensor, kernel: Tensor) -> Tensor:
        seen = extended(image) if self.extend else image
        made: Any = self.network(seen, kernel)
        down, right = ((a - b) // 2 for a, b in zip(seen.shape[-2:], image.shape[-2:], strict=True))
        return made.images[-1][..., down : down + image.shape[-2], right : right + image.shape[-1]].clamp(0, 1)


def extended(image: Tensor) -> Tensor:
    """(N, C, H, W) mirrored at all borders, the edge repeated, to about twice its size: H // 2 more on each side."""
    for axis in (2, 3):
        side = image.shape[axis]
        places = np.pad(np.arange(side), side // 2, mode="symmetric")
        image = image.index_select(axis, torch.from_numpy(places).to(image.device))
    return image
