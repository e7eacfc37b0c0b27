"""Degradations for restoration, as operations: noise, blur, down-sampling, compression."""

from __future__ import annotations

from selftaught._rooms import fill_room

__all__ = fill_room(__name__, __path__, globals(), lazy=True)
