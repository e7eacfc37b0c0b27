"""A room finds its files: by ``__all__``, lazily or not, and a name wins over the module of the same name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from selftaught._rooms import room_files, room_modules, room_names

Build = Callable[..., ModuleType]
EAGER, LAZY = False, True


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Build]:
    """Write a package ``attic`` of the given files and import it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    room_names.cache_clear()

    def write(lazy: bool, own: str = "", **files: str) -> ModuleType:
        folder = tmp_path / "attic"
        fill = (
            f"from selftaught._rooms import fill_room\n{own}\n__all__ = fill_room(__name__, __path__, globals(), lazy="
        )
        for name, text in {"__init__": f"{fill}{lazy})\n", **files}.items():
            file = folder / f"{name.replace('__in__', '/')}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text.replace("FILL", f"{fill}{lazy})\n"))
        return import_module("attic")

    yield write
    for name in [name for name in sys.modules if name == "attic" or name.startswith("attic.")]:
        del sys.modules[name]


def make(*names: str, more: str = "") -> str:
    return f"__all__ = {list(names)!r}\n" + "".join(f"def {name}(): return {name!r}\n" for name in names) + more


@pytest.mark.parametrize("lazy", [EAGER, LAZY])
def test_names_are_found_and_underscores_left_out(build: Build, lazy: bool) -> None:
    room = build(lazy, dcl=make("dcl", "coupling"), other=make("Third"), _tiled="hidden = 1\n")
    assert room.__all__ == dir(room) == ["Third", "coupling", "dcl"]
    assert [getattr(room, name)() for name in room.__all__] == room.__all__
    with pytest.raises(AttributeError, match="'attic' has no attribute 'hidden'"):
        _ = room.hidden


@pytest.mark.parametrize("lazy", [EAGER, LAZY])
def test_a_function_wins_over_its_module(build: Build, lazy: bool) -> None:
    room = build(lazy, dcl=make("dcl", more="inner = 3\n"))
    module = import_module("attic.dcl")
    assert module.inner == 3
    assert room.dcl is module.dcl
    from attic import dcl  # type: ignore[import-not-found]
    from attic.dcl import inner  # type: ignore[import-not-found]

    assert dcl() == "dcl"
    assert inner == 3


def test_lazy_imports_nothing_until_a_name_is_used(build: Build) -> None:
    room = build(LAZY, a=make("one"), b="raise RuntimeError('imported')\n" + make("two"))
    assert dir(room) == ["one", "two"]
    assert "attic.a" not in sys.modules
    assert room.one() == "one"
    with pytest.raises(RuntimeError, match="imported"):
        _ = room.two


@pytest.mark.parametrize("lazy", [EAGER, LAZY])
def test_a_module_is_reached_by_its_name_where_no_function_has_it(build: Build, lazy: bool) -> None:
    assert build(lazy, noise=make("gaussian")).noise.gaussian() == "gaussian"


@pytest.mark.parametrize("lazy", [EAGER, LAZY])
def test_two_modules_with_one_name_are_refused(build: Build, lazy: bool) -> None:
    with pytest.raises(ImportError, match=r"attic.a and attic.b both have 'same'"):
        build(lazy, a=make("same"), b=make("same"))


@pytest.mark.parametrize(
    "text", ["x = 1\n", "__all__ = sorted(['a'])\n", "__all__ = ['a']\n__all__ += ['b']\n", "__all__ = [1]"]
)
def test_a_module_without_a_literal_list_is_refused(build: Build, text: str) -> None:
    with pytest.raises(ImportError, match=r"attic.a needs one literal __all__"):
        build(LAZY, a=text)


def test_a_name_that_the_module_lacks(build: Build) -> None:
    with pytest.raises(ImportError, match=r"attic.a has 'gone' in its __all__"):
        build(EAGER, a="__all__ = ['gone']\n")
    del sys.modules["attic.a"]
    with pytest.raises(ImportError, match=r"attic.a has 'gone' in its __all__"):
        _ = build(LAZY, a="__all__ = ['gone']\n").gone


@pytest.mark.parametrize("lazy", [EAGER, LAZY])
def test_a_sub_room_gives_the_names_of_its_files(build: Build, lazy: bool) -> None:
    room = build(lazy, a=make("one"), sub__in____init__="FILL", sub__in__b=make("two"), sub__in__c=make("c"))
    assert dir(room) == ["c", "one", "two"]
    assert room.two is import_module("attic.sub.b").two
    assert room.sub.two is room.two
    assert room.c is room.sub.c


def test_the_rooms_own_names_stand_beside_them(build: Build) -> None:
    room = build(LAZY, own="def get(): return 7", a=make("one"))
    room.__all__.append("get")
    assert dir(room) == ["get", "one"]
    assert room.get() == 7


def test_parenthesised_annotated_and_commented_lists_are_read(build: Build) -> None:
    room = build(LAZY, a="__all__: tuple[str, ...] = (\n    'x',  # the first\n    'y',\n)\nx = y = 1\n")
    assert dir(room) == ["x", "y"]


def test_the_modules_of_a_package_are_imported_one_by_one(build: Build) -> None:
    room = build(LAZY, beta="__all__ = []\nfound = 2\n", alpha="__all__ = []\nfound = 1\n", _base="found = 0\n")
    assert room_files(room.__path__) == ["alpha", "beta"]
    modules = room_modules("attic", room.__path__)
    assert "attic.alpha" not in sys.modules
    assert next(modules)[0] == "alpha"
    assert "attic.beta" not in sys.modules
    assert [(name, module.found) for name, module in modules] == [("beta", 2)]
