"""A room (a package such as ``objectives``) finds its files: a new file is there by its ``__all__``, no list is edited.

In the package's ``__init__``::

    __all__ = fill_room(__name__, __path__, globals())                # every module imported now
    __all__ = fill_room(__name__, __path__, globals(), lazy=True)     # each when one of its names is first used

Modules whose names begin with ``_`` are left out. A name wins over the module of the same name: ``objectives.dcl`` is
the function, and the module is still found by ``from selftaught.objectives.dcl import dclw_weights``.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator, MutableMapping
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

_ASSIGNED = re.compile(r"^__all__\b[^=\n]*=\s*", re.MULTILINE)
_BRACKETS = re.compile(r"\[[^\]]*\]|\([^)]*\)")


def fill_room(
    package: str, path: Iterable[str], namespace: MutableMapping[str, Any], *, lazy: bool = False
) -> list[str]:
    """Give a package the public names of its modules.

    Args:
        package: ``__name__`` of the package.
        path: ``__path__`` of the package.
        namespace: ``globals()`` of the package.
        lazy: names are read from the files without importing them; a module is imported at the first use of a name.

    Returns:
        The names, sorted: what ``__all__`` is to be (with the package's own beside them, where it has any).

    Raises:
        ImportError: a module without a literal ``__all__``, a name that two modules give, or one that a module lacks.
    """
    origins = room_names(package, tuple(path))
    namespace["_origins"] = origins
    if not lazy:
        modules = {module: import_module(module) for module in sorted(set(origins.values()))}
        namespace.update({name: _take(modules[module], name) for name, module in origins.items()})
    sys.modules[package].__class__ = _Room
    return sorted(origins)


@cache
def room_names(package: str, path: tuple[str, ...]) -> dict[str, str]:
    """The public names of a package's modules without importing them: name -> module, in the order of the files.

    Args:
        package: dotted name of the package.
        path: its folders.

    Raises:
        ImportError: a module without a literal ``__all__``, or a name that two modules give.
    """
    origins: dict[str, str] = {}
    for folder in path:
        for module, names in _modules(package, Path(folder)):
            for name in names:
                if name in origins:
                    raise ImportError(f"{origins[name]} and {module} both have {name!r} in their __all__; rename one")
                origins[name] = module
    return origins


def room_modules(package: str, path: Iterable[str]) -> Iterator[tuple[str, ModuleType]]:
    """The modules of a package that don't begin with ``_``, imported one by one: (name of the file, module), sorted.

    Args:
        package: ``__name__`` of the package.
        path: ``__path__`` of the package.
    """
    for name in room_files(path):
        yield name, import_module(f"{package}.{name}")


def room_files(path: Iterable[str]) -> list[str]:
    """Names of a package's modules that don't begin with ``_``, sorted; nothing is imported."""
    return sorted(module.name for module in iter_modules(list(path)) if not module.name.startswith("_"))


class _Room(ModuleType):
    """A package whose names are looked up in its modules, and not hidden by modules of the same name."""

    _origins: dict[str, str]

    def __getattr__(self, name: str) -> Any:
        origins = self.__dict__.get("_origins", {})
        if name in origins:
            self.__dict__[name] = _take(import_module(origins[name]), name)
            return self.__dict__[name]
        if f"{self.__name__}.{name}" in origins.values():
            return import_module(f"{self.__name__}.{name}")
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def __setattr__(self, name: str, value: object) -> None:
        # importing a submodule sets it on its package, where it would hide the name
        if isinstance(value, ModuleType) and name in self._origins and value.__name__ == f"{self.__name__}.{name}":
            return
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*self.__dict__.get("__all__", ()), *self._origins})


def _take(module: ModuleType, name: str) -> Any:
    if not hasattr(module, name):
        raise ImportError(f"{module.__name__} has {name!r} in its __all__ but doesn't define it")
    return getattr(module, name)


def _modules(package: str, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Public modules under a folder with their names; a sub-room (a folder that fills itself) gives its files'."""
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(("_", ".")):
            continue
        module = f"{package}.{entry.stem}"
        if entry.suffix == ".py":
            yield module, _declared(entry, module)
        elif (entry / "__init__.py").is_file():
            if "fill_room(" in (entry / "__init__.py").read_text(encoding="utf-8"):
                yield from _modules(module, entry)
            else:
                yield module, _declared(entry / "__init__.py", module)


def _declared(file: Path, module: str) -> list[str]:
    """The literal ``__all__`` of a file. Only that statement is parsed: a whole room in a few milliseconds."""
    text = file.read_text(encoding="utf-8")
    starts = list(_ASSIGNED.finditer(text))
    brackets = _BRACKETS.match(text, starts[0].end()) if len(starts) == 1 else None
    try:
        names = ast.literal_eval(brackets.group()) if brackets else None
    except (ValueError, SyntaxError):
        names = None
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ImportError(f"{module} needs one literal __all__ = [names], without brackets in its comments")
    return list(names)
