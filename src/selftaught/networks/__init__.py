"""Networks: image encoders (timm first), transformers, heads, restoration nets, encoders of series, momentum, queues.

The room finds its files: the names in the ``__all__`` of every module here are names of this package, imported when
first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from selftaught._rooms import fill_room

__all__ = fill_room(__name__, __path__, globals(), lazy=True)

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...
