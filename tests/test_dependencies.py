"""What the project declares it uses, and what it uses it declares."""

from __future__ import annotations

import ast
import functools
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TOOLS = {"dev", "docs"}
"""Extras of people who work on the project: commands and what tests import, nothing that ``src`` imports."""
THROUGH = {
    "tensorboard": "lightning",
    "imagecodecs": "tifffile",
    "sqlalchemy": "mlflow-skinny",
    "alembic": "mlflow-skinny",
}
"""What another declared package imports for us, and which one: a logger's back end, a codec."""


def _name(requirement: str) -> str:
    """Normalised name of a requirement: ``PyWavelets>=1.8`` -> ``pywavelets``."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0]).lower()


BASE = {_name(entry) for entry in PROJECT["dependencies"]}
EXTRAS = {
    extra: {_name(entry) for entry in entries if _name(entry) != "selftaught"}
    for extra, entries in PROJECT["optional-dependencies"].items()
}
OPTIONAL = set().union(*(names for extra, names in EXTRAS.items() if extra not in TOOLS))
INSTALLED = {module: {_name(d) for d in found} for module, found in packages_distributions().items()}


def _modules(tree: ast.AST) -> Iterator[str]:
    """Top-level names of modules that code imports: by statement, or by ``require("x", ...)``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield str(node.module).partition(".")[0]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "require":
            yield from (str(a.value).partition(".")[0] for a in node.args[:1] if isinstance(a, ast.Constant))


def _at_once(tree: ast.Module) -> Iterator[str]:
    """Modules that are imported as soon as the file is."""
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from _modules(node)


def _foreign(names: Iterator[str]) -> set[str]:
    return set(names) - set(sys.stdlib_module_names) - {"selftaught", "tests", "__future__"}


def _distributions(module: str) -> set[str]:
    """Distributions that bring a module; one that isn't installed is taken to have the module's name."""
    return INSTALLED.get(module, {_name(module)})


FILES = [
    file.relative_to(ROOT).as_posix()
    for folder in ("src", "tests", "benchmarks", "docs")
    for file in sorted((ROOT / folder).rglob("*.py"))
    if not any(part.startswith(".") for part in file.relative_to(ROOT).parts)  # peers that benchmarks fetch
]
SOURCE = [name for name in FILES if name.startswith("src/")]


@functools.cache
def _imports(file: str) -> tuple[set[str], set[str]]:
    """Foreign modules that a file imports anywhere, and those that it imports as soon as it is itself."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return _foreign(_modules(tree)), _foreign(_at_once(tree))


def test_names_of_requirements_are_read_as_the_index_reads_them() -> None:
    assert _name("PyWavelets>=1.8") == "pywavelets"
    assert _name("selftaught[hf,wds]") == "selftaught"
    assert _name("opencv_python.headless ~= 4; python_version > '3'") == "opencv-python-headless"


def test_imports_are_found_wherever_they_stand() -> None:
    code = "import a.b\ndef f():\n    from c.d import e\n    require('g', 'extra')\n    from . import h\n"
    assert set(_modules(ast.parse(code))) == {"a", "c", "g"}
    assert set(_at_once(ast.parse(code))) == {"a"}


@functools.cache
def _used() -> set[str]:
    """Distributions that some file of ``src`` imports."""
    return {d for file in SOURCE for module in _imports(file)[0] for d in _distributions(module)}


@pytest.mark.parametrize("name", sorted(BASE | OPTIONAL))
def test_what_is_declared_is_used(name: str) -> None:
    from selftaught.engine.trainer import _LOGGERS

    used = _used() | {d for logger in _LOGGERS for d in (logger, f"{logger}-skinny")}
    if name in THROUGH:
        assert THROUGH[name] in BASE | OPTIONAL, f"{name} comes in through {THROUGH[name]}, which is not declared"
        assert name not in used - set(_LOGGERS), f"{name} is imported here: take it out of THROUGH"
    else:
        assert name in used, f"pyproject declares {name}, and nothing in src imports it"


@pytest.mark.parametrize("file", SOURCE)
def test_what_is_imported_is_declared(file: str) -> None:
    anywhere, at_once = _imports(file)
    for module in anywhere:
        assert _distributions(module) & (BASE | OPTIONAL), f"{file} imports {module}, which pyproject does not declare"
    for module in at_once:
        assert _distributions(module) & BASE, f"{file} imports {module} at its top, and only an extra brings it"


def test_tests_import_what_some_extra_brings() -> None:
    """Only what is installed here counts: scripts import one another, and some tests make packages of their own."""
    known = BASE | set().union(*EXTRAS.values())
    for file in FILES:
        if not file.startswith("src/"):
            installed = _imports(file)[0] & set(INSTALLED)
            missing = {module for module in installed if not _distributions(module) & known}
            assert not missing, f"{file} imports {missing}, which pyproject does not declare"
