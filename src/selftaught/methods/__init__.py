"""The methods, one file per system, found by themselves and imported when first used.

>>> from selftaught import methods
>>> methods.DCL(encoder="resnet18", image_size=32)
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selftaught import catalog
from selftaught._rooms import fill_room, room_names
from selftaught.errors import UserError

_NAMES = fill_room(__name__, __path__, globals(), lazy=True)
__all__ = ["built", "get", *_NAMES]


def _classes() -> dict[str, str]:
    """File of each method's class: module name (without the package) -> class name, the first of its ``__all__``."""
    found: dict[str, str] = {}
    for name, module in room_names(__name__, tuple(__path__)).items():
        found.setdefault(module.rpartition(".")[2], name)
    return found


def get(slug: str) -> Any:
    """The class of a method by its slug.

    Raises:
        UserError: no such method, or it is in the catalogue but not built yet.
    """
    card = catalog.card(slug)
    module = card.slug.replace("-", "_")
    classes = _classes()
    if module in classes:
        return getattr(import_module(f"{__name__}.{module}"), classes[module])
    if card.built:
        raise UserError(f"{card.slug} is no single method to train; run: {card.command}")
    raise UserError(f"{card.slug} is in the catalogue but not built yet; built: {', '.join(built())}")


def built() -> list[str]:
    """Slugs of the methods that run."""
    files = Path(__file__).parent.glob("[!_]*.py")
    return sorted(file.stem.replace("_", "-") for file in files)


if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...
