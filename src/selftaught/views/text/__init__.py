"""Operations on texts: which caption, without which words, in what order, as which numbers."""

from __future__ import annotations

from selftaught._rooms import fill_room

__all__ = fill_room(__name__, __path__, globals(), lazy=True)
