"""AugMix: chains of small distortions, mixed with the image (Hendrycks et al., ICLR 2020, arXiv 1912.02781)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import cv2
import numpy as np
import torch

from selftaught.errors import UserError
from selftaught.views.operation import Drawn, Op, executor

__all__ = ["AugMix"]

_SEEDS = 2.0**53


@dataclasses.dataclass(frozen=True, repr=False)
class AugMix(Op):
    """m x + (1 - m) sum_k w_k chain_k(x),  w ~ Dirichlet(alpha ...),  m ~ Beta(alpha, alpha).

    A chain is 1 to ``depth`` operations drawn from autocontrast, equalise, posterise, rotate, solarise, shear and
    translate along x and y. Mixing pixels is mixing normalised pixels: the weights sum to 1. uint8 images of any
    channels; the size stays.

    Args:
        severity: of the operations, above 0 to 10 (default 1).
        width: chains (default 3).
        depth: operations of a chain at most (default 3).
        alpha: of the weights' distributions (default 1).

    Raises:
        UserError: values that make no sense.
    """

    severity: float = 1.0
    width: int = 3
    depth: int = 3
    alpha: float = 1.0

    columns: ClassVar = ("seed",)
    draws: ClassVar = 1

    def __post_init__(self) -> None:
        if not 0 < self.severity <= 10 or self.width < 1 or self.depth < 1 or not self.alpha > 0:
            raise UserError(
                f"AugMix: severity above 0 to 10, width and depth 1 or more, alpha above 0; got {self.severity}, "
                f"{self.width}, {self.depth}, {self.alpha}"
            )

    def draw(self, u: Any, height: Any, width: Any) -> Drawn:
        """Draw the seed of the chains and their weights."""
        return (np.floor(u[0] * _SEEDS),), height, width


@executor(AugMix, "image")
def _augmix(x: np.ndarray, op: AugMix, values: Any) -> np.ndarray:
    rng = np.random.default_rng(int(values[0]))
    weights = rng.dirichlet([op.alpha] * op.width)
    share = rng.beta(op.alpha, op.alpha)
    mixed = share * x.astype(np.float32)
    for weight in weights:
        chain = x
        for _ in range(int(rng.integers(1, op.depth + 1))):
            kind = _KINDS[int(rng.integers(len(_KINDS)))]
            chain = kind(chain, rng, op.severity)
        mixed += (1 - share) * weight * chain
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


@executor(AugMix, "image", device=True)
def _augmix_batch(x: torch.Tensor, op: AugMix, values: Any) -> torch.Tensor:
    """Image by image on the processor: histograms and warps differ between the samples."""
    images = x.permute(0, 2, 3, 1).cpu().numpy()
    made = [_augmix(np.ascontiguousarray(image), op, row) for image, row in zip(images, values, strict=True)]
    return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).to(x.device)


# ---- operations ------------------------------------------------------------------------------------------------------
def _level(rng: np.random.Generator, severity: float) -> float:
    """How strong, as a share of the strongest: up to severity / 10."""
    return float(rng.uniform(0.1, max(severity, 0.1))) / 10


def _sign(rng: np.random.Generator) -> float:
    return 1.0 if rng.random() < 0.5 else -1.0


def _by_table(x: np.ndarray, table: np.ndarray) -> np.ndarray:
    return table.astype(np.uint8)[x]


def _autocontrast(x: np.ndarray, rng: np.random.Generator, severity: float) -> np.ndarray:
    """Each channel from its darkest to its brightest value over the whole range."""
    low, high = (f(x, axis=(0, 1)).astype(np.float32) for f in (np.min, np.max))
    spread = np.maximum(high - low, 1e-6)
    stretched = np.where(high > low, (x - low) * (255 / spread), x)
    return np.clip(np.rint(stretched), 0, 255).astype(np.uint8)


def _equalise(x: np.ndarray, rng: np.random.Generator, severity: float) -> np.ndarray:
    """Each channel with a flat histogram."""
    channels = [cv2.equalizeHist(np.ascontiguousarray(x[..., c])) for c in range(x.shape[2])]
    return np.stack(channels, axis=2)


def _posterise(x: np.ndarray, rng: np.random.Generator, severity: float) -> np.ndarray:
    """Only the highest bits, 4 less up to 4."""
    bits = 4 - int(_level(rng, severity) * 4)
    return x & np.uint8(256 - (1 << (8 - max(bits, 1))))


def _solarise(x: np.ndarray, rng: np.random.Generator, severity: float) -> np.ndarray:
    """Bright values inverted."""
    limit = 256 - int(_level(rng, severity) * 256)
    values = np.arange(256)
    return _by_table(x, np.where(values < limit, values, 255 - values))


def _warp(x: np.ndarray, matrix: list[list[float]]) -> np.ndarray:
    """An affine map from the result's places to the image's, black beyond its border."""
    options: dict[str, Any] = {"flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, "borderMode": cv2.BORDER_CONSTANT}
    made = cv2.warpAffine(x, np.array(matrix, np.float64), (x.shape[1], x.shape[0]), **options)
    return made if made.ndim == 3 else made[..., None]


def _rotate(x: np.ndarray, rng: np.random.Generator, severity: float) -> np.ndarray:
    """Up to 30 degrees about the middle."""
    degrees = int(_level(rng, severity) * 30) * _sign(rng)
    turn = cv2.getRotationMatrix2D(((x.shape[1] - 1) / 2, (x.shape[0] - 1) / 2), degrees, 1.0)
    return _warp(x, turn.tolist())


def _shear_x(x: np.ndarray, rng: np.random.Generator, severity: float) -> np.ndarray:
    return _warp(x, [[1, 0.3 * _level(rng, severity) * _sign(rng), 0], [0, 1, 0]])


def _shear_y(x: np.ndarray, rng: np.random.Generator, severity: float) -> np.ndarray:
    return _warp(x, [[1, 0, 0], [0.3 * _level(rng, severity) * _sign(rng), 1, 0]])


def _translate_x(x: np.ndarray, rng: np.random.Generator, severity: float) -> np.ndarray:
    return _warp(x, [[1, 0, int(_level(rng, severity) * x.shape[1] / 3) * _sign(rng)], [0, 1, 0]])


def _translate_y(x: np.ndarray, rng: np.random.Generator, severity: float) -> np.ndarray:
    return _warp(x, [[1, 0, 0], [0, 1, int(_level(rng, severity) * x.shape[0] / 3) * _sign(rng)]])


_KINDS: tuple[Callable[[np.ndarray, np.random.Generator, float], np.ndarray], ...] = (
    _autocontrast, _equalise, _posterise, _rotate, _solarise, _shear_x, _shear_y, _translate_x, _translate_y,
)  # fmt: skip
