"""Protocols: embeddings or predictions and their targets in, numbers with intervals and figures out.

A protocol knows nothing of methods, data sources or runs, so the same function serves the online callback, ``evaluate``
and ``benchmark``, on this encoder, a random one and raw input alike. A file declares its own by
``@protocol(NAME, DESCRIPTION, inputs=KIND)``; nothing else is edited.

    >>> import numpy as np
    >>> from selftaught import evaluation
    >>> x, y = np.eye(4)[[0, 1, 0, 1]], [0, 1, 0, 1]
    >>> evaluation.knn(x, y, x, y, k=1)["accuracy"].mean
    1.0
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from selftaught._rooms import fill_room
from selftaught.evaluation._protocol import Protocol, protocols

if TYPE_CHECKING:
    from typing import Any

    from selftaught.evaluation.result import Difference as Difference
    from selftaught.evaluation.result import Number as Number
    from selftaught.evaluation.result import Result as Result

    def __getattr__(name: str) -> Any: ...


__all__ = ["PROTOCOLS", "Protocol", *fill_room(__name__, __path__, globals())]

PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(protocols())
"""Protocols by their name on the command line."""
