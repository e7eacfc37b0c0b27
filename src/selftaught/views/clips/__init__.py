"""Operations on clips: which frames, which tokens."""

from __future__ import annotations

from selftaught._rooms import fill_room

__all__ = fill_room(__name__, __path__, globals(), lazy=True)
