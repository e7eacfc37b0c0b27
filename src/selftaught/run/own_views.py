"""Views of the user's own in place of a method's: from Python or a YAML file, kept in the run's configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selftaught import views
from selftaught.engine.method import Method
from selftaught.errors import UserError
from selftaught.views import Pipeline, Recipe, ViewSet

__all__ = ["described", "install"]


def described(given: Any) -> dict[str, Any]:
    """Views as config.yaml holds them.

    Args:
        given: path of a YAML file (see :func:`selftaught.views.load`), a ViewSet, a Recipe, a Pipeline or a list of
            these.

    Raises:
        UserError: something else, or a file that can't be read.
    """
    if isinstance(given, str | Path):
        given = views.load(given)
    if isinstance(given, Pipeline):
        given = [given]
    if isinstance(given, Sequence) and not isinstance(given, ViewSet):
        given = ViewSet(list(given))
    if not isinstance(given, ViewSet | Recipe):
        raise UserError("views: give a YAML file, a Pipeline, a list of them, a ViewSet or a Recipe")
    return given.to_dict()


def install(method: Method, content: dict[str, Any]) -> None:
    """Let a method learn from these views; a single one stands for all that it makes of a sample.

    Raises:
        UserError: another number of views than the method compares, or other names than its recipe has.
    """
    own: Recipe | None = method.recipe()
    if own is not None or any("of" in view for view in content["views"]):
        method.own_recipe = _fitting_recipe(method, own, content)
        return
    given, wanted = ViewSet.from_dict(content), method.views()
    if not wanted:
        raise UserError(f"--own-views: {method.slug} makes no views of {method.modality} samples by operations")
    if len(given) not in (1, len(wanted)):
        raise UserError(
            f"--own-views: {method.slug} learns from {len(wanted)} views of an image, {len(given)} are described"
        )
    method.own_views = list(given) if len(given) == len(wanted) else [given[0]] * len(wanted)


def _fitting_recipe(method: Method, own: Recipe | None, content: dict[str, Any]) -> Recipe:
    if own is None or not all("of" in view for view in content["views"]):
        reads = "views of one image (without 'of')" if own is None else "a recipe (every view says what it is 'of')"
        raise UserError(f"--own-views: {method.slug} takes {reads}")
    given = Recipe.from_dict(content)
    have, want = {view.name for view in given.views}, {view.name for view in own.views}
    if have != want:
        names = [", ".join(sorted(some)) for some in (want, have)]
        raise UserError(f"--own-views: {method.slug} reads the views {names[0]}; described: {names[1]}")
    return given
