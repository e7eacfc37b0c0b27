"""Operations on texts."""

from __future__ import annotations

from selftaught import views

INSTANCES = (views.PickText(), views.DropStopWords(), views.AugmentText(), views.Tokenise("words-64", 8))
