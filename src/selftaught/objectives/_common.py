"""What every objective shares: float32 under autocast, and the checks of its inputs."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, MutableMapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import reduce, wraps
from inspect import isfunction, signature
from numbers import Real
from typing import Any, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.errors import UserError

SHORTEST = 1e-8
"""Below this length a vector counts as longer than it is."""

NO_NEGATIVES = " (one sample has no negatives); raise the batch size"
"""Why a batch of one is too small."""

CHECKED: set[Any] = set()
"""The functions that check the types of their arguments while they bring them to float32."""

P = ParamSpec("P")
R = TypeVar("R")


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """A context in which autocast leaves the operations on ``device`` alone."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def in_float32(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate an objective so that it computes in float32 whatever autocast says.

    Half-precision inputs are raised to float32 and float64 inputs keep float64; mixed inputs are raised to the widest.
    Tensors without dimension (a learnt temperature) follow the others. Gradients come back in each input's own type.
    An argument that is declared a number takes a tensor of one number, too; one that waits for a gradient and would
    get none is refused.
    """
    declared = function.__annotations__
    numbers = {name for name, hint in declared.items() if hint in ("float", "int", "float | None")}
    learnable = numbers | {name for name, hint in declared.items() if hint in _NUMBER_OR_TENSOR}
    named = _named(function)

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        given = named(args, kwargs)
        for name, value in given:
            _check_type(name, value, declared.get(name))
        for name in numbers & kwargs.keys():
            kwargs[name] = _number(kwargs[name])
        waiting = {n: v for n, v in given if n in learnable and isinstance(v, Tensor) and v.requires_grad}
        result = computed(args, kwargs)
        if waiting and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            _check_reached(result, waiting)
        return result

    CHECKED.add(wrapped)

    def computed(args: Any, kwargs: Any) -> R:
        floating = [v for v in (*args, *kwargs.values()) if isinstance(v, Tensor) and v.is_floating_point()]
        if not floating:
            return function(*args, **kwargs)
        deciding = [t for t in floating if t.dim()] or floating
        dtype = reduce(torch.promote_types, (t.dtype for t in deciding), torch.float32)

        def raised(value: Any) -> Any:
            return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

        with without_autocast(floating[0].device):
            return function(*map(raised, args), **{k: raised(v) for k, v in kwargs.items()})

    return wrapped


def of_declared_types(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function so that it refuses arguments that aren't the tensors or numbers they are declared to be."""
    declared = function.__annotations__
    named = _named(function)

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        for name, value in named(args, kwargs):
            _check_type(name, value, declared.get(name))
        return function(*args, **kwargs)

    return wrapped


def check_types_of(names: Sequence[str], room: MutableMapping[str, Any]) -> None:
    """Decorate the functions of a room, and of its modules, by :func:`of_declared_types` where nothing did it yet."""
    for name in names:
        function = room[name]
        if isfunction(function) and function not in CHECKED:
            room[name] = of_declared_types(function)
            setattr(sys.modules[function.__module__], name, room[name])


def _named(function: Callable[..., Any]) -> Callable[[tuple[Any, ...], dict[str, Any]], list[tuple[str, Any]]]:
    """What gives the arguments of a call their names."""
    parameters = signature(function).parameters.values()
    places = [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
    others = next((one.name for one in parameters if one.kind is one.VAR_POSITIONAL), "")

    def named(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[tuple[str, Any]]:
        names = [*places[: len(args)], *[others] * (len(args) - len(places))]
        return [*zip(names, args, strict=True), *kwargs.items()]

    return named


_NUMBER_OR_TENSOR = ("float | Tensor", "Tensor | float", "float | Tensor | None", "Tensor | float | None")


def _check_type(name: str, value: Any, hint: Any) -> None:
    """Refuse what is neither the tensor nor the number that an argument is declared to be."""
    if isinstance(value, Tensor) or (value is None and "None" in str(hint)):
        return
    if hint in ("Tensor", "Tensor | None"):
        raise UserError(f"{name} must be a tensor, got {type(value).__name__}; give torch.as_tensor(...)")
    if (hint in ("float", "float | None") or hint in _NUMBER_OR_TENSOR) and (
        isinstance(value, bool) or not isinstance(value, Real)
    ):
        raise UserError(f"{name} must be a number, got {value!r:.40}")


def _check_reached(result: Any, waiting: dict[str, Tensor]) -> None:
    """Refuse numbers that wait for a gradient where the result does not depend on them differentiably."""
    ends = {name: value if value.grad_fn is None else value.grad_fn for name, value in waiting.items()}
    missing = {id(end): name for name, end in ends.items()}
    for tensor in _tensors(result):  # a number may be handed back as it came
        missing.pop(id(tensor), None)
    level = {tensor.grad_fn for tensor in _tensors(result) if tensor.grad_fn is not None}
    seen = set(level)
    while level and missing:  # nearest first: a number lies close to the result, the networks behind it
        for node in level:
            missing.pop(id(getattr(node, "variable", node)), None)
        level = {parent for node in level for parent, _ in node.next_functions if parent is not None} - seen
        seen |= level
    for name in missing.values():
        check_numbers(**{name: waiting[name]})


def _tensors(result: Any) -> list[Tensor]:
    """The tensors in a result, also within dicts, lists and tuples."""
    if isinstance(result, Tensor):
        return [result]
    inside = result.values() if isinstance(result, dict) else result if isinstance(result, list | tuple) else ()
    return [tensor for one in inside for tensor in _tensors(one)]


def _number(value: Any) -> Any:
    """The number in a tensor of one that waits for no gradient; anything else as it is."""
    known = isinstance(value, Tensor) and value.numel() == 1 and not value.requires_grad
    return value.item() if known else value


def check_numbers(**values: Any) -> None:
    """Refuse tensors for arguments through which no gradient flows.

    Raises:
        UserError: (a ``ValueError``) it names the first one.
    """
    for name, value in values.items():
        if isinstance(value, Tensor):
            raise UserError(f"{name} is a number and gets no gradient: give {name}.item(), got a tensor")


def check_views(*views: Tensor, minimum: int = 1, why: str = "") -> tuple[int, int]:
    """Refuse views that aren't (N, D) of one shape with at least ``minimum`` rows; returns (N, D).

    Raises:
        UserError: (a ``ValueError``) wrong rank, different shapes, integer values, or a batch below ``minimum``.
    """
    shapes = [tuple(v.shape) for v in views]
    if any(len(s) != 2 for s in shapes) or len(set(shapes)) != 1:
        raise UserError(f"the views need one shape (batch, dimension), got {' and '.join(map(str, shapes))}")
    if not all(v.is_floating_point() for v in views):
        raise UserError("the views need floating-point values; call .float() on them")
    rows, width = shapes[0]
    if rows < minimum:
        raise UserError(f"a batch of {rows} is too small: this objective needs at least {minimum}{why}")
    return rows, width


def check_floats(**tensors: Tensor | None) -> None:
    """Refuse tensors (those that aren't None) of integers or booleans.

    Raises:
        UserError: it names the first one and its type.
    """
    for name, tensor in tensors.items():
        if tensor is not None and not tensor.is_floating_point():
            raise UserError(f"{name} needs floating-point values, got {tensor.dtype}; call .float() on it")


def check_entries(queue: Tensor, width: int, minimum: int = 1) -> None:
    """Refuse a queue that isn't (K, width) floating-point values with K of ``minimum`` or more.

    Raises:
        UserError: it says what was given and what is needed.
    """
    if queue.dim() != 2 or queue.shape[1] != width:
        raise UserError(f"the queue needs the shape (entries, {width}), got {tuple(queue.shape)}")
    if len(queue) < minimum:
        raise UserError(f"the queue needs the shape (entries, {width}), {minimum} entry or more; it is empty")
    check_floats(queue=queue)


def check_positive(**values: float | Tensor) -> None:
    """Refuse a hyper-parameter that must be one number above zero.

    Of a tensor (a learnt temperature) the value is looked at on the CPU only: elsewhere the host would wait for it.

    Raises:
        UserError: it names the first value that is zero, negative or NaN, or a tensor of several numbers.
    """
    for name, value in values.items():
        if isinstance(value, Tensor):
            if value.numel() != 1:
                raise UserError(f"{name} must be one number, got a tensor {tuple(value.shape)}")
            if value.device.type != "cpu":
                continue
        if not value > 0:
            raise UserError(f"{name} must be above 0, got {float(value):g}")


def one_number(value: float | Tensor) -> float | Tensor:
    """A hyper-parameter as a factor that adds no dimension: a tensor (1,) becomes ()."""
    return value.reshape(()) if isinstance(value, Tensor) else value


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value that isn't one of ``choices``.

    Raises:
        UserError: it names the option, the value and the choices.
    """
    if value not in choices:
        raise UserError(f"{name} must be one of {', '.join(choices)}; got {value!r}")


def check_labels(labels: Tensor, rows: int, classes: int | None = None, *, lowest: int = 0) -> None:
    """Refuse labels that aren't (N,) int64, or on the CPU any outside ``lowest`` .. ``classes`` - 1.

    Raises:
        UserError: it says what was given and what is needed.
    """
    if not isinstance(labels, Tensor) or labels.shape != (rows,):
        given = tuple(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
        raise UserError(f"labels must have the shape ({rows},), one per sample, got {given}")
    if labels.dtype != torch.int64:
        raise UserError(f"labels must be int64, got {labels.dtype}; call .long() on them")
    if classes is not None and rows:
        check_range("labels", labels, lowest, classes)


def check_range(name: str, values: Tensor, low: int, high: int) -> None:
    """Refuse integers outside low .. high - 1. Looked at on the CPU only: elsewhere the host would wait for them.

    Raises:
        UserError: it names the values, the range and the extremes found.
    """
    if values.device.type == "cpu" and values.numel():
        least, most = int(values.min()), int(values.max())
        if least < low or most >= high:
            raise UserError(f"{name} must lie in {low} .. {high - 1}, got {least} .. {most}")


def expect_unit(objective: str, *views: Tensor) -> None:
    """Warn where an objective that doesn't normalise is given vectors that aren't of length 1.

    On the CPU at every call (Python shows a warning once), on a GPU at the first: reading the lengths makes it wait.
    """
    if views[0].device.type != "cpu":
        if objective in _SEEN:
            return
        _SEEN.add(objective)
    with torch.no_grad():
        longest = torch.stack([torch.linalg.vector_norm(v, dim=-1).amax() for v in views if v.numel()]).tolist()
    far = max(longest, key=lambda length: abs(length - 1), default=1.0)
    if abs(far - 1) > 0.01:  # what half precision leaves of a unit vector is nearer; NaN is let through
        warnings.warn(
            f"{objective} expects unit vectors and got some of length {far:.3g}; "
            f"normalise them first: torch.nn.functional.normalize(z, dim=1)",
            stacklevel=2,
        )


_SEEN: set[str] = set()


def unit(z: Tensor, dim: int = -1) -> Tensor:
    """Rows of length 1. Below :data:`SHORTEST` a row counts as that long, so that a row of zeros stays zero.

    Its gradient is then at most 1/SHORTEST times what arrives, as of torch's cosine similarity.
    """
    return F.normalize(z, dim=dim, eps=SHORTEST)


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)) without torch's threshold, exact in both tails; 0 with a gradient of 0 at minus infinity.

    -log(p / (p + n)) = softplus(log n - log p): what is left of a contrast near convergence, where log(p + n) - log p
    cancels.
    """
    return -F.logsigmoid(-x)


def mean_distance(output: Tensor, target: Tensor, kind: str) -> Tensor:
    """Mean absolute (``"l1"``) or mean squared (``"l2"``, also called ``"mse"``) difference over all entries."""
    difference = output - target
    return difference.abs().mean() if kind == "l1" else difference.square().mean()


def mean_cosine(a: Tensor, b: Tensor) -> Tensor:
    """Mean cosine of the rows of two (N, D) matrices."""
    return (unit(a) * unit(b)).sum(1).mean()
