"""Options, presets and stages of a method, read from the syntax tree of its file: nothing is imported or run."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Union

from selftaught.catalog.rules import ANY, Form, Range, Rule

PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Option:
    """One field of a config: its name, annotation as written, default, explanation, and what it may be.

    ``inherited`` says that another file than the method's introduces it: an option that several methods share.
    """

    name: str
    type: str
    default: Any
    help: str
    rule: Rule = ANY
    inherited: bool = False

    @property
    def flag(self) -> str:
        """How it is written on the command line: ``lambda_`` -> ``--lambda``, ``batch_size`` -> ``--batch-size``."""
        return "--" + self.name.strip("_").replace("_", "-")

    @property
    def choices(self) -> tuple[Any, ...]:
        """The values of a Literal."""
        return self.rule.choices

    @property
    def kind(self) -> str:
        """What it may be: the choices as "a | b", "a number above 0", or the annotation where that says it all."""
        if self.choices:
            return " | ".join(str(c) for c in self.choices)
        return self.rule.words.removesuffix(" or None") if self.rule.type else self.type


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
    """Value of the class attribute ``name`` in the first class, no config, that has or inherits it; else None."""
    module = _module(file, root)
    for node in module.tree.body:
        if not isinstance(node, ast.ClassDef) or node.name.endswith("Config"):
            continue
        for ancestor, home in _ancestors(module, node):
            found = _assignments(ancestor.body).get(name)
            if found is not None:
                return home.literal(found, name)
    return None


def read_own_literals(file: Path, name: str, root: Path = PACKAGE.parent) -> Iterator[Any]:
    """Values of the class attribute ``name`` in the classes of a file that give it one themselves.

    Raises:
        ValueError: it takes running the file to know the value.
    """
    if name not in file.read_text(encoding="utf-8"):
        return
    module = _module(file, root)
    for node in module.tree.body:
        own = _assignments(node.body) if isinstance(node, ast.ClassDef) else {}
        if name in own:
            yield module.literal(own[name], name)


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
                option = replace(
                    option,
                    help=option.help or earlier.help,
                    rule=option.rule.after(earlier.rule),
                    inherited=earlier.inherited,
                )
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
_TYPES: dict[str, Any] = {"bool": bool, "int": int, "float": float, "str": str, "list": list, "dict": dict}
_NOTES: dict[str, Callable[..., Any]] = {"Range": Range, "Form": Form}


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
        rule = Rule.of(_hint(field.annotation, home))
        yield Option(field.target.id, annotation, _default(field.value, home), " ".join(str(text).split()), rule)


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


def _hint(node: ast.AST, home: _Module) -> Any:
    """The type that an annotation stands for, its names followed through imports; Any where they lead nowhere."""
    match node:
        case ast.Constant(value=str(text)):
            return _hint(ast.parse(text, mode="eval").body, home)
        case ast.Constant(value=None):
            return None
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return Union[_hint(left, home), _hint(right, home)]  # noqa: UP007
        case ast.Subscript(value=outer, slice=inner):
            return _subscript(ast.unparse(outer).rpartition(".")[2], _several(inner), home)
        case ast.Name() | ast.Attribute():
            found = home.find(ast.unparse(node))
            if found is None:
                return _TYPES.get(ast.unparse(node), Any)
            return Any if isinstance(found[1], ast.ClassDef) else _hint(found[1], found[0])
    return Any


def _subscript(outer: str, inner: list[ast.expr], home: _Module) -> Any:
    match outer:
        case "Literal":
            return Literal[tuple(home.value(part) for part in inner)]
        case "Optional":
            return Optional[_hint(inner[0], home)]  # noqa: UP045
        case "Annotated":
            return Annotated[(_hint(inner[0], home), *(_note(part, home) for part in inner[1:]))]
    return _TYPES.get(outer, Any)


def _note(node: ast.AST, home: _Module) -> Any:
    """``Range(...)`` or ``Form(...)`` of an Annotated, written there or under a name."""
    match node:
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in _NOTES:
            given = {word.arg: home.value(word.value) for word in node.keywords if word.arg}
            return _NOTES[name](*map(home.value, node.args), **given)
        case ast.Name() | ast.Attribute():
            found = home.find(ast.unparse(node))
            return _note(found[1], found[0]) if found is not None else None
    return None


def _several(node: ast.expr) -> list[ast.expr]:
    return node.elts if isinstance(node, ast.Tuple) else [node]
