"""Operations on clouds of points: where they lie, which of them are seen, in what colours."""

from __future__ import annotations

from selftaught._rooms import fill_room

__all__ = fill_room(__name__, __path__, globals(), lazy=True)
