"""Options, presets and stages of a method, read from the syntax tree of its file: nothing is imported or run."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Option:
    """One field of a config: its name, annotation as written, default, explanation and, for a Literal, its choices.

    ``inherited`` says that another file than the method's introduces it: an option that several methods share.
    """

    name: str
    type: str
    default: Any
    help: str
    choices: tuple[Any, ...] = ()
    inherited: bool = False

    @property
    def flag(self) -> str:
        """How it is written on the command line: ``lambda_`` -> ``--lambda``, ``batch_size`` -> ``--batch-size``."""
        return "--" + self.name.strip("_").replace("_", "-")

    @property
    def kind(self) -> str:
        """The choices as "a | b", or the type."""
        return " | ".join(str(c) for c in self.choices) if self.choices else self.type


class Expression(str):
    """Source text of a default that is more than a literal; shown as it is written."""

    __repr__ = str.__str__


REQUIRED = Expression("required")


def read_literal(file: Path, name: str, root: Path = PACKAGE.parent) -> Any:
    """Value of a module-level literal such as ``PRESETS``; None if the file doesn't have it.

    Raises:
        ValueError: it takes running the file to know the value.
    """
    module = _module(file, root)
    return module.literal(module.names[name], name) if name in module.names else None


def read_class_literal(file: Path, name: str, root: Path = PACKAGE.parent) -> Any:
    """Value of the class attribute ``name`` of the first class in the file that has it, inherited or not; else None."""
    module = _module(file, root)
    for node in module.tree.body:
        for ancestor, home in _ancestors(module, node) if isinstance(node, ast.ClassDef) else ():
            found = _assignments(ancestor.body).get(name)
            if found is not None:
                return home.literal(found, name)
    return None


def read_options(file: Path, class_name: str, root: Path = PACKAGE.parent) -> list[Option]:
    """Fields of a dataclass, read without running its file.

    A field is an annotated assignment followed by its attribute docstring. Base classes are followed through the file's
    imports; as in a dataclass, base fields come first and an override keeps the place. An override that brings no
    explanation keeps the earlier one.

    Args:
        file: Python file.
        class_name: dataclass in it, or a name imported into it.
        root: folder that holds the top-level packages.

    Raises:
        ValueError: the file has no such class.
    """
    found = _module(file, root).find(class_name)
    if found is None or not isinstance(found[1], ast.ClassDef):
        raise ValueError(f"{file.name} has no class {class_name}")
    fields: dict[str, Option] = {}
    for node, home in reversed(_ancestors(found[0], found[1])):
        for option in _own_fields(node, home):
            earlier = fields.get(option.name)
            if earlier is None:
                option = replace(option, inherited=home.file != file)
            else:
                option = replace(option, help=option.help or earlier.help, inherited=earlier.inherited)
            fields[option.name] = option
    return list(fields.values())


class _NotLiteral(Exception):
    """An expression that can't be known without running it."""


_OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Pow: operator.pow, ast.USub: operator.neg, ast.UAdd: operator.pos,
}  # fmt: skip
_MAKERS: dict[str, Callable[..., Any]] = {
    "dict": dict,
    "list": list,
    "tuple": tuple,
    "set": set,
    "float": float,
    "int": int,
}


class _Module:
    """One Python file as a syntax tree, with its names followed through imports."""

    def __init__(self, file: Path, root: Path) -> None:
        self.file, self.root = file, root
        self.tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
        self.imports = {alias: origin for node in self.tree.body for alias, origin in self._imported(node)}
        self.names: dict[str, ast.AST] = {n.name: n for n in self.tree.body if isinstance(n, ast.ClassDef)}
        self.names |= _assignments(self.tree.body)

    def _imported(self, node: ast.stmt) -> Iterator[tuple[str, tuple[str, str | None]]]:
        """Pairs of a local name and where it is from: (module, name in it or None for the module itself)."""
        if isinstance(node, ast.Import):
            for alias in node.names:
                whole = alias.asname or alias.name.partition(".")[0]
                yield whole, (alias.name if alias.asname else whole, None)
        elif isinstance(node, ast.ImportFrom):
            package = self.file.relative_to(self.root).parts[:-1] if node.level else ()
            package = package[: len(package) - node.level + 1] if node.level else ()
            source = ".".join((*package, *(node.module or "").split("."))).strip(".")
            for alias in node.names:
                yield alias.asname or alias.name, (source, alias.name)

    def find(self, dotted: str) -> tuple[_Module, ast.AST] | None:
        """The module and node that a (dotted) name stands for; None if it is from outside ``root``."""
        head, _, rest = dotted.partition(".")
        if head in self.names:
            node = self.names[head]
            renamed = isinstance(node, ast.Name | ast.Attribute)
            return None if rest else self.find(ast.unparse(node)) if renamed else (self, node)
        if head not in self.imports:
            return None
        source, name = self.imports[head]
        path = ".".join(part for part in (source, name, rest) if part).split(".")
        for cut in range(len(path) - 1, 0, -1):
            for file in (
                self.root.joinpath(*path[:cut]).with_suffix(".py"),
                self.root.joinpath(*path[:cut], "__init__.py"),
            ):
                if file.is_file():
                    return _module(file, self.root).find(".".join(path[cut:]))
        return None

    def value(self, node: ast.AST) -> Any:
        """The value of a literal expression: displays, arithmetic, ``dict(a=1)``, names of other literals."""
        match node:
            case ast.Constant():
                return node.value
            case ast.Dict():
                pairs = zip(node.keys, node.values, strict=True)
                merged = [self.value(v).items() if k is None else [(self.value(k), self.value(v))] for k, v in pairs]
                return {key: value for part in merged for key, value in part}
            case ast.List() | ast.Tuple() | ast.Set():
                parts = [self.value(e.value) if isinstance(e, ast.Starred) else [self.value(e)] for e in node.elts]
                items = [item for part in parts for item in part]
                return (
                    items if isinstance(node, ast.List) else tuple(items) if isinstance(node, ast.Tuple) else set(items)
                )
            case ast.UnaryOp() if type(node.op) in _OPERATORS:
                return _OPERATORS[type(node.op)](self.value(node.operand))
            case ast.BinOp() if type(node.op) in _OPERATORS:
                return _OPERATORS[type(node.op)](self.value(node.left), self.value(node.right))
            case ast.Call(func=ast.Name(id=maker)) if maker in _MAKERS:
                named = {k: v for word in node.keywords for k, v in self._keyword(word)}
                return _MAKERS[maker](*map(self.value, node.args), **named)
            case ast.Name() | ast.Attribute():
                found = self.find(ast.unparse(node))
                if found is not None and not isinstance(found[1], ast.ClassDef):
                    return found[0].value(found[1])
        raise _NotLiteral(ast.unparse(node))

    def literal(self, node: ast.AST, name: str) -> Any:
        """:meth:`value`, with the fault explained."""
        try:
            return self.value(node)
        except _NotLiteral as error:
            raise ValueError(f"{self.file.name}: {name} must be a literal, and {error} is not") from error

    def _keyword(self, word: ast.keyword) -> Iterable[tuple[str, Any]]:
        return self.value(word.value).items() if word.arg is None else [(word.arg, self.value(word.value))]


@cache
def _module(file: Path, root: Path) -> _Module:
    return _Module(file, root)


def _assignments(body: list[ast.stmt]) -> dict[str, ast.AST]:
    """Names that a body gives a value to, and the node of that value."""
    found: dict[str, ast.AST] = {}
    for node in body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        value = getattr(node, "value", None)
        found |= {target.id: value for target in targets if isinstance(target, ast.Name) and value is not None}
    return found


def _ancestors(home: _Module, node: ast.ClassDef) -> list[tuple[ast.ClassDef, _Module]]:
    """The class and its ancestors in Python's order of resolution (C3), as far as their files can be read."""
    lines = []
    for base in node.bases:
        found = home.find(ast.unparse(base))
        if found is not None and isinstance(found[1], ast.ClassDef):
            lines.append(_ancestors(found[0], found[1]))
    lines.append([line[0] for line in lines])
    order = [(node, home)]
    while lines := [line for line in lines if line]:
        head = next((line[0] for line in lines if not any(line[0] in other[1:] for other in lines)), None)
        if head is None:
            raise ValueError(f"{home.file.name}: the bases of {node.name} contradict one another in their order")
        order.append(head)
        lines = [[entry for entry in line if entry != head] for line in lines]
    return order


def _own_fields(node: ast.ClassDef, home: _Module) -> Iterator[Option]:
    for place, field in enumerate(node.body):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        annotation = ast.unparse(field.annotation).strip("'\"")
        if field.target.id.startswith("_") or "ClassVar" in annotation:
            continue
        follower = node.body[place + 1] if place + 1 < len(node.body) else None
        described = isinstance(follower, ast.Expr) and isinstance(follower.value, ast.Constant)
        text = follower.value.value if described else ""  # type: ignore[union-attr]
        choices = _choices(ast.parse(annotation, mode="eval").body, home)
        yield Option(field.target.id, annotation, _default(field.value, home), " ".join(str(text).split()), choices)


def _default(node: ast.expr | None, home: _Module) -> Any:
    """The default of a field, through ``field(default=...)`` and ``field(default_factory=...)``."""
    if node is None:
        return REQUIRED
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("field", "dataclasses.field"):
        given = {word.arg: word.value for word in node.keywords}
        factory = given.get("default_factory")
        made = factory.body if isinstance(factory, ast.Lambda) else ast.Call(factory, [], []) if factory else None
        return _default(given.get("default", made), home)
    try:
        return home.value(node)
    except _NotLiteral:
        return Expression(ast.unparse(node))


def _choices(annotation: ast.AST, home: _Module) -> tuple[Any, ...]:
    """Values of a ``Literal[...]``, also behind ``| None``, ``Optional`` or a name for it."""
    match annotation:
        case ast.Subscript(value=ast.Name(id=name) | ast.Attribute(attr=name)) if name == "Literal":
            inner = annotation.slice
            return tuple(home.value(e) for e in (inner.elts if isinstance(inner, ast.Tuple) else [inner]))
        case ast.Subscript(value=ast.Name(id=name) | ast.Attribute(attr=name)) if name == "Optional":
            return _choices(annotation.slice, home)
        case ast.BinOp(left=left, op=ast.BitOr(), right=ast.Constant(value=None)):
            return _choices(left, home)
        case ast.Name() | ast.Attribute():
            found = home.find(ast.unparse(annotation))
            return _choices(found[1], found[0]) if found is not None and isinstance(found[1], ast.Subscript) else ()
    return ()
