"""Augmentations of sensor series, batched: (N, C, T) tensors in, the same shape out, drawn for each sample.

Every function takes a ``generator`` for repeatable results; it may live on another device than the series. The family
follows Um et al. 2017 (wearable sensors) and the SimCLR recipes built on it (Tang et al. 2020).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selftaught.errors import UserError

__all__ = [
    "series_simclr",
]


def _check(x: Tensor, name: str) -> None:
    if x.ndim != 3 or not x.is_floating_point() or not x.numel():
        raise UserError(
            f"{name}: series are floating (N, C, T), got {tuple(x.shape)} {str(x.dtype).removeprefix('torch.')}"
        )


def _uniform(x: Tensor, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    device = x.device if generator is None else generator.device
    return torch.rand(shape, generator=generator, device=device).to(x.device)


def _normal(x: Tensor, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    device = x.device if generator is None else generator.device
    return torch.randn(shape, generator=generator, device=device).to(x.device)


def jitter(x: Tensor, sigma: float = 0.05, *, generator: torch.Generator | None = None) -> Tensor:
    """White noise added: x + sigma * n.

    Args:
        x: (N, C, T).
        sigma: standard deviation in the series' units (default 0.05, for series standardised to unit variance).
        generator: random generator.
    """
    _check(x, "jitter")
    return x + sigma * _normal(x, tuple(x.shape), generator).to(x.dtype)


def scaling(x: Tensor, sigma: float = 0.1, *, generator: torch.Generator | None = None) -> Tensor:
    """Each channel of each sample multiplied by its own factor from N(1, sigma**2).

    Args:
        x: (N, C, T).
        sigma: spread of the factors (default 0.1).
        generator: random generator.
    """
    _check(x, "scaling")
    return x * (1 + sigma * _normal(x, (*x.shape[:2], 1), generator)).to(x.dtype)


@lru_cache(maxsize=32)
def _spline_basis(knots: int, length: int) -> np.ndarray:
    """(knots + 2, length): the cubic spline through knots + 2 evenly spaced values is values @ basis."""
    from scipy.interpolate import CubicSpline

    places = np.linspace(0, length - 1, knots + 2)
    return CubicSpline(places, np.eye(knots + 2))(np.arange(length)).T


def _smooth_curve(x: Tensor, channels: int, sigma: float, knots: int, generator: torch.Generator | None) -> Tensor:
    """(N, channels, T) cubic curves through knots drawn from N(1, sigma**2)."""
    if knots < 1:
        raise UserError(f"series: knots must be at least 1, got {knots}")
    basis = torch.from_numpy(_spline_basis(knots, x.shape[2])).to(x.device, torch.float32)
    return (1 + sigma * _normal(x, (len(x), channels, knots + 2), generator)) @ basis


def magnitude_warp(
    x: Tensor, sigma: float = 0.2, knots: int = 4, *, generator: torch.Generator | None = None
) -> Tensor:
    """Each channel multiplied by a smooth curve around 1: a cubic spline through knots from N(1, sigma**2).

    Args:
        x: (N, C, T).
        sigma: spread of the knots (default 0.2).
        knots: inner knots, besides the two ends (default 4).
        generator: random generator.
    """
    _check(x, "magnitude_warp")
    return x * _smooth_curve(x, x.shape[1], sigma, knots, generator).to(x.dtype)


def _read_at(x: Tensor, place: Tensor) -> Tensor:
    """Linear interpolation of (N, C, T) at times (N, S) in samples, all channels alike."""
    place = place.clamp(0, x.shape[2] - 1)
    left = place.floor().long().clamp(max=max(x.shape[2] - 2, 0))
    right = (left + 1).clamp(max=x.shape[2] - 1)
    part = (place - left).to(x.dtype)[:, None]
    near, far = (x.gather(2, at[:, None].expand(-1, x.shape[1], -1)) for at in (left, right))
    return near + (far - near) * part


def time_warp(x: Tensor, sigma: float = 0.2, knots: int = 4, *, generator: torch.Generator | None = None) -> Tensor:
    """Time runs faster and slower: the series read along a smooth increasing path with the same ends.

    The speed is a cubic spline through knots from N(1, sigma**2), kept at 0.1 or more; its running sum, scaled to
    0..T - 1, says where to read. All channels share the path.

    Args:
        x: (N, C, T).
        sigma: spread of the speed's knots (default 0.2).
        knots: inner knots (default 4).
        generator: random generator.
    """
    _check(x, "time_warp")
    if x.shape[2] < 2:
        return x.clone()
    speed = _smooth_curve(x, 1, sigma, knots, generator)[:, 0].clamp_min(0.1)
    path = (speed[:, :-1] + speed[:, 1:]).cumsum(1)
    path = torch.cat([torch.zeros_like(path[:, :1]), path], 1)
    return _read_at(x, path / path[:, -1:] * (x.shape[2] - 1))


def permutation(x: Tensor, segments: int = 5, *, generator: torch.Generator | None = None) -> Tensor:
    """The series cut at random places into 1 to ``segments`` pieces, put together in random order; no value is lost.

    Args:
        x: (N, C, T).
        segments: the most pieces (default 5), at most T.
        generator: random generator.
    """
    _check(x, "permutation")
    n, channels, length = x.shape
    if not 1 <= segments <= length:
        raise UserError(f"permutation: segments must be between 1 and the series' length {length}, got {segments}")
    if segments == 1:
        return x.clone()
    count = (_uniform(x, (n, 1), generator) * segments).long()  # cuts to make, 0..segments - 1
    order = _uniform(x, (n, length - 1), generator).argsort(1).argsort(1)
    cut = torch.nn.functional.pad((order < count).long(), (1, 0))
    piece = cut.cumsum(1)
    rank = _uniform(x, (n, segments), generator).argsort(1).gather(1, piece)
    path = (rank * length + torch.arange(length, device=x.device)).argsort(1)
    return x.gather(2, path[:, None].expand(n, channels, length))


def rotation(x: Tensor, *, axes: int = 3, generator: torch.Generator | None = None) -> Tensor:
    """A sensor worn another way round: each group of three channels turned by an even-drawn rotation of space.

    Where the channels aren't in threes, or ``axes`` is 1, each channel's sign is drawn instead.

    Args:
        x: (N, C, T); channels 0-2, 3-5, ... are the x, y, z of one sensor.
        axes: 3 (default) or 1.
        generator: random generator.
    """
    _check(x, "rotation")
    n, channels, length = x.shape
    if axes not in (1, 3):
        raise UserError(f"rotation: axes must be 3 (turns) or 1 (signs), got {axes!r}")
    if axes == 1 or channels % 3:
        return x * (2 * (_uniform(x, (n, channels, 1), generator) < 0.5).to(x.dtype) - 1)
    q = torch.nn.functional.normalize(_normal(x, (n, channels // 3, 4), generator), dim=-1)
    w, i, j, k = q.unbind(-1)
    rows = (
        torch.stack([1 - 2 * (j * j + k * k), 2 * (i * j - k * w), 2 * (i * k + j * w)], -1),
        torch.stack([2 * (i * j + k * w), 1 - 2 * (i * i + k * k), 2 * (j * k - i * w)], -1),
        torch.stack([2 * (i * k - j * w), 2 * (j * k + i * w), 1 - 2 * (i * i + j * j)], -1),
    )
    turned = torch.stack(rows, -2).to(x.dtype) @ x.reshape(n, channels // 3, 3, length)
    return turned.reshape(n, channels, length)


def channel_dropout(x: Tensor, p: float = 0.1, *, generator: torch.Generator | None = None) -> Tensor:
    """Channels set to zero, each with probability ``p``; one always stays.

    Args:
        x: (N, C, T).
        p: probability per channel (default 0.1).
        generator: random generator.
    """
    _check(x, "channel_dropout")
    if not 0 <= p <= 1:
        raise UserError(f"channel_dropout: p is a probability between 0 and 1, got {p!r}")
    chance = _uniform(x, tuple(x.shape[:2]), generator)
    keep = (chance >= p) | (chance == chance.amax(1, keepdim=True))
    return x * keep[:, :, None].to(x.dtype)


def crop_resize(
    x: Tensor, scale: tuple[float, float] = (0.5, 1.0), *, generator: torch.Generator | None = None
) -> Tensor:
    """A random stretch of the series, read back at the full length by linear interpolation.

    Args:
        x: (N, C, T).
        scale: range of the stretch's share of the length (default 0.5 to 1).
        generator: random generator.
    """
    _check(x, "crop_resize")
    low, high = scale
    if not 0 < low <= high <= 1:
        raise UserError(f"crop_resize: scale must satisfy 0 < low <= high <= 1, got {scale!r}")
    u = _uniform(x, (len(x), 2), generator)
    length = x.shape[2] - 1
    span = (low + u[:, :1] * (high - low)) * length
    start = u[:, 1:] * (length - span)
    return _read_at(x, start + span * torch.linspace(0, 1, x.shape[2], device=x.device))


AUGMENTATIONS: dict[str, Callable[..., Tensor]] = {
    function.__name__: function
    for function in (
        jitter,
        scaling,
        magnitude_warp,
        time_warp,
        permutation,
        rotation,
        channel_dropout,
        crop_resize,
    )
}
"""Every augmentation by name, as :class:`SeriesOp` looks them up."""


@dataclasses.dataclass(frozen=True)
class SeriesOp:
    """One augmentation in a series pipeline.

    Args:
        name: a key of :data:`AUGMENTATIONS`.
        p: probability with which a sample gets it (default 1).
        options: the augmentation's own options.
    """

    name: str
    p: float = 1.0
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in AUGMENTATIONS:
            raise UserError(f"SeriesOp: no augmentation {self.name!r}; there are {', '.join(AUGMENTATIONS)}")
        if not 0 <= self.p <= 1:
            raise UserError(f"SeriesOp {self.name}: p is a probability between 0 and 1, got {self.p!r}")
        code = AUGMENTATIONS[self.name].__code__
        known = set(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]) - {"x", "generator"}
        if unknown := set(self.options) - known:
            raise UserError(f"{self.name}: no option {min(unknown)!r}; there are {', '.join(sorted(known)) or 'none'}")


@dataclasses.dataclass(frozen=True)
class SeriesPipeline:
    """One view of a series: augmentations in order, each applied to each sample with its probability.

    Args:
        ops: the augmentations.
        name: what reports call this view.
    """

    ops: tuple[SeriesOp, ...]
    name: str = "view"

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Make the view of a batch: (N, C, T) in, (N, C, T) out; deterministic given the generator's state."""
        _check(x, "SeriesPipeline")
        for op in self.ops:
            chosen = _uniform(x, (len(x), 1, 1), generator) < op.p
            x = torch.where(chosen, AUGMENTATIONS[op.name](x, generator=generator, **op.options), x)
        return x

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, as YAML and JSON write them; :meth:`from_dict` reads it back."""
        ops = [{"op": op.name, "p": op.p, "options": {k: _listed(v) for k, v in op.options.items()}} for op in self.ops]
        return {"name": self.name, "ops": ops}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SeriesPipeline:
        """Read what :meth:`to_dict` wrote."""
        ops = []
        for one in data.get("ops", ()):
            options = {k: tuple(v) if isinstance(v, list) else v for k, v in (one.get("options") or {}).items()}
            ops.append(SeriesOp(str(one.get("op")), float(one.get("p", 1.0)), options))
        return cls(tuple(ops), name=str(data.get("name", "view")))


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@dataclasses.dataclass(frozen=True)
class SeriesViews:
    """Several views of a batch of series: ``x1, x2 = series_simclr()(x, generator=g)``.

    Args:
        pipelines: one per view.
    """

    pipelines: tuple[SeriesPipeline, ...]

    def __call__(self, x: Tensor, generator: torch.Generator | int | None = None) -> list[Tensor]:
        """Make every view of (N, C, T); a generator or a seed makes the result repeatable."""
        if isinstance(generator, int):
            generator = torch.Generator().manual_seed(generator)
        return [pipeline(x, generator) for pipeline in self.pipelines]

    def __iter__(self) -> Any:
        return iter(self.pipelines)

    def __len__(self) -> int:
        return len(self.pipelines)


def series_simclr(*, strength: float = 1.0, rotate: bool = True, views: int = 2) -> SeriesViews:
    """Views for contrastive learning on sensor series (the family of Tang et al. 2020).

    Crop and stretch (p 0.5), time warp (0.5), permutation (0.3), rotation (0.5), magnitude warp (0.5), scaling (0.8),
    jitter (0.8), channel dropout (0.2).

    Args:
        strength: multiplies the spreads of jitter, scaling and both warps (default 1).
        rotate: False where the sensor's axes carry meaning (ECG leads, EEG channels).
        views: how many equal views (default 2).
    """
    if views < 1 or strength < 0:
        raise UserError(
            f"series_simclr: views must be at least 1 and strength not negative, got {views} and {strength}"
        )
    turn = (SeriesOp("rotation", 0.5),) if rotate else ()
    ops = (
        SeriesOp("crop_resize", 0.5, {"scale": (0.5, 1.0)}),
        SeriesOp("time_warp", 0.5, {"sigma": 0.2 * strength}),
        SeriesOp("permutation", 0.3, {"segments": 5}),
        *turn,
        SeriesOp("magnitude_warp", 0.5, {"sigma": 0.2 * strength}),
        SeriesOp("scaling", 0.8, {"sigma": 0.1 * strength}),
        SeriesOp("jitter", 0.8, {"sigma": 0.05 * strength}),
        SeriesOp("channel_dropout", 0.2, {"p": 0.2}),
    )
    return SeriesViews(tuple(SeriesPipeline(ops, name=f"view {i + 1}") for i in range(views)))
