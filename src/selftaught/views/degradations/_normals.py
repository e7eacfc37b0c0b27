"""Normal numbers that NumPy and torch make alike, from a seed and a place: noise that both executors agree on.

A counter is hashed with the seed by MurmurHash3's 32-bit finaliser, twice; pairs of hashes become pairs of normal
numbers by Box and Muller's transform, in float32 (so no number lies beyond 5.8 deviations).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from selftaught.views._fast import kernels

if TYPE_CHECKING:
    from torch import Tensor

SEEDS = 2.0**53
"""A seed is a whole number below this, which a float64 parameter holds exactly."""

_ONE, _TWO, _WORD = 0x85EBCA6B, 0xC2B2AE35, 0xFFFFFFFF


def words(seed: float) -> tuple[np.uint32, np.uint32]:
    """The lower and the upper 32 bits of a seed."""
    return np.uint32(int(seed) & _WORD), np.uint32(int(seed) >> 32)


def _mixed(x: np.ndarray, spare: np.ndarray) -> np.ndarray:
    """Murmur's finaliser of 32-bit words, in place; ``spare`` is room for as many."""
    x ^= np.right_shift(x, 16, out=spare)
    x *= _ONE
    x ^= np.right_shift(x, 13, out=spare)
    x *= _TWO
    x ^= np.right_shift(x, 16, out=spare)
    return x


def normals(seed: float, shape: tuple[int, ...]) -> np.ndarray:
    """Independent N(0, 1) numbers.

    Args:
        seed: whole number, 0 to 2**53 - 1.
        shape: of the result.

    Returns:
        ``shape`` float32.
    """
    low, high = words(seed)
    count = math.prod(shape)
    half = (count + 1) // 2
    compiled = kernels()
    if compiled is not None:
        made = np.empty(2 * half, np.float32)
        compiled.normals(low, high, made)
        return made[:count].reshape(shape)
    hashed = np.arange(2 * half, dtype=np.uint32)
    hashed ^= low
    spare = np.empty_like(hashed)
    _mixed(hashed, spare)
    hashed += high
    _mixed(hashed, spare)
    hashed >>= 8
    unit = hashed.astype(np.float32)
    radius, angle = unit[:half], unit[half:]
    radius += 1
    radius *= 2**-24
    np.log(radius, out=radius)
    radius *= -2
    np.sqrt(radius, out=radius)
    angle *= 2 * math.pi * 2**-24
    made = np.empty(2 * half, np.float32)
    np.multiply(np.cos(angle, out=made[:half]), radius, out=made[:half])
    np.multiply(np.sin(angle, out=made[half:]), radius, out=made[half:])
    return made[:count].reshape(shape)


def normals_batch(seeds: np.ndarray, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """:func:`normals` of several seeds (N,) on the device of ``like``: (N, *shape) float32."""
    import torch

    count = math.prod(shape)
    half = (count + 1) // 2
    halves = torch.tensor([list(map(int, words(seed))) for seed in seeds.tolist()]).to(like.device)
    counter = torch.arange(2 * half, device=like.device)
    hashed = _mixed_tensor(_mixed_tensor(counter ^ halves[:, :1]) + halves[:, 1:])
    unit = (hashed >> 8).to(torch.float32)
    radius = (-2 * torch.log((unit[:, :half] + 1) * 2**-24)).sqrt()
    angle = unit[:, half:] * (2 * math.pi * 2**-24)
    both = torch.cat([radius * angle.cos(), radius * angle.sin()], 1)
    return both[:, :count].reshape(len(seeds), *shape)


def _mixed_tensor(x: Tensor) -> Tensor:
    """The same on 32-bit words kept in int64."""
    x = x & _WORD
    x = ((x ^ (x >> 16)) * _ONE) & _WORD
    x = ((x ^ (x >> 13)) * _TWO) & _WORD
    return x ^ (x >> 16)
