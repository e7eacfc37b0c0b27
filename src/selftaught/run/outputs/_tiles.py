"""How large a tile may be: what a network needs of memory for each pixel, measured once on a small picture."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from selftaught.engine.method import Method

LEAST = 512
"""Side of a tile that is always allowed."""

_PROBE, _GRID, _MOST = 256, 64, 8192
_ROOM = 2 * 2**30
"""Bytes that a process may hold on a CPU besides PyTorch, to stay within 3 GiB."""

_known: weakref.WeakKeyDictionary[Method, tuple[float, float]] = weakref.WeakKeyDictionary()
"""Bytes for each pixel: what a network holds at most, and the result."""


def fitting_tile(method: Method, network: Callable[[Tensor], Any], image: Tensor) -> int:
    """Side of the largest square that a network may see at once, a multiple of 64.

    Small tiles compute much twice, where they overlap; large ones hold much at a time. On a GPU a tile takes up to half
    of the memory that is free, on a CPU what keeps the process within 3 GiB, or a quarter of what is available, if that
    is less.

    Args:
        method: whose network it is; what is measured is kept for it.
        network: of an image, (N, C, H, W).
        image: the one that is to be restored; a small part of it is tried.
    """
    if max(image.shape[-2:]) <= LEAST:
        return LEAST
    if method not in _known:
        part = image[..., :_PROBE, :_PROBE].contiguous()
        with torch.inference_mode(), Peak() as seen:
            made = network(part)
        pixels = part.shape[-2] * part.shape[-1]
        _known[method] = max(1.0, seen.most / pixels), made.numel() * made.element_size() / pixels
    held, result = _known[method]
    side = int((_room(image, result) / held) ** 0.5)
    return min(_MOST, max(LEAST, side // _GRID * _GRID))


def _room(image: Tensor, result: float) -> float:
    """Bytes for a tile, beside the picture as it is read and as floats, the result, and what is written of it."""
    if image.device.type == "cuda":
        return int(torch.cuda.mem_get_info(image.device)[0]) // 2
    kept = image.shape[-2] * image.shape[-1] * (5 * image.shape[1] + 1.5 * result)
    return max(0, min(_ROOM - kept, psutil.virtual_memory().available / 4))


class Peak(TorchDispatchMode):
    """The most bytes that tensors made within it held together.

    Attributes:
        most: that number.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count what it made."""
        made = func(*args, **(kwargs or {}))
        given = {id(one.untyped_storage()) for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)}
        for one in tree_leaves(made):
            if isinstance(one, Tensor):
                self._count(one.untyped_storage(), given)
        return made

    def _count(self, storage: Any, given: set[int]) -> None:
        if id(storage) in given or storage in self._seen:
            return
        self._seen.add(storage)
        size = storage.nbytes()
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._gone, size)

    def _gone(self, size: int) -> None:
        self.now -= size
