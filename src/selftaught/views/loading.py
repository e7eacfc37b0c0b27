"""Views of one's own, written down in a YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selftaught._reading import text_of, yaml_text
from selftaught.errors import UserError
from selftaught.views.recipe import Recipe
from selftaught.views.viewset import ViewSet

__all__ = ["load"]


def load(path: str | Path, seed: int | None = None) -> ViewSet | Recipe:
    """Read views from a YAML file: a list of views of one image, or a recipe of several fields.

    Views of one image::

        views:
          - name: view 1
            ops:
              - RandomResizedCrop: {size: 96, scale: [0.2, 1.0]}
              - HorizontalFlip
              - ColorJitter: {brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1}
          - ops: [{CenterCrop: {size: 96}}]

    A recipe, where every view says what it is ``of`` (and may name its ``space`` and ``scale``)::

        views:
          - {name: high, of: image, ops: [{RandomCrop: {size: 96}}, Dihedral]}
          - {name: low, of: high, ops: [{Downsample: {scale: 4}}]}
        kinds: {image: image}

    Args:
        path: the file.
        seed: of the list of views (see :class:`ViewSet`).

    Raises:
        UserError: a file that can't be read or is no YAML; the message names the file and the key.
    """
    import yaml

    try:
        data = yaml_text(text_of(path))
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror or error}); give a YAML file with views") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8; give a YAML file with views") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}: no YAML{line} ({getattr(error, 'problem', None) or 'unreadable'})") from error
    try:
        return _read(data, seed)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _read(data: Any, seed: int | None) -> ViewSet | Recipe:
    if not isinstance(data, Mapping) or not isinstance(data.get("views"), list) or not data["views"]:
        raise UserError("the file needs a key 'views' with a list of views")
    recipe = [isinstance(view, Mapping) and "of" in view for view in data["views"]]
    if any(recipe) and not all(recipe):
        raise UserError(f"views[{recipe.index(False)}]: says not what it is 'of', while others do")
    return Recipe.from_dict(data) if any(recipe) else ViewSet.from_dict(data, seed=seed)
