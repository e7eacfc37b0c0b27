"""A pipeline describes one view: operations in order, and the draw of their parameters."""

from __future__ import annotations

import dataclasses
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from selftaught.errors import UserError
from selftaught.views.operation import FRAMED, OPS, Op

__all__ = [
    "Params",
    "Pipeline",
    "stack_params",
]

Params = np.ndarray
"""The parameters of one view of one sample: a float64 vector ``(len(pipeline.columns),)``, or one such row per frame of
a clip; of a batch, ``(N, ...)``."""


@dataclasses.dataclass(frozen=True, repr=False)
class Pipeline:
    """One view of an image, described: a sequence of operations that an executor applies in order.

    All randomness is in :meth:`sample`; ``render(image, pipeline, params)`` and
    ``render_batch(images, pipeline, params)`` are functions of pixels and parameters alone and give the same pixels.

    Args:
        ops: operations from :mod:`selftaught.views.spec`, in the order in which they are applied.
        name: what reports call this view (default "view").
        per_frame: draw anew for every frame of a clip and slice of a volume (default False: once for all of them).

    Raises:
        UserError: something in ``ops`` is no operation.
    """

    ops: tuple[Op, ...]
    name: str = "view"
    per_frame: bool = False

    def __post_init__(self) -> None:
        ops = tuple(self.ops) if isinstance(self.ops, Sequence) else (self.ops,)
        for op in ops:
            if not isinstance(op, Op):
                raise UserError(f"Pipeline: {op!r} is no view operation; use one of {', '.join(_known())}")
            if op.temporal and (op is not ops[0] or self.per_frame):
                raise UserError(f"Pipeline: {op!r} picks frames; it comes first, in a pipeline that isn't per_frame")
        object.__setattr__(self, "ops", ops)
        stops = np.cumsum([len(op.columns) for op in ops], dtype=int).tolist()
        object.__setattr__(self, "_spans", tuple(zip(ops, [0, *stops][: len(ops)], stops, strict=True)))
        object.__setattr__(self, "_shape", (stops[-1] if stops else 0,))
        object.__setattr__(self, "_draws", sum(op.draws for op in ops))
        object.__setattr__(self, "_chains", {})

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_chains": {}}  # functions found for one process stay there

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the parameters, "<place>.<operation>.<column>", in the order of a parameter vector."""
        return tuple(f"{i}.{type(op).__name__}.{column}" for i, op in enumerate(self.ops) for column in op.columns)

    @property
    def draws(self) -> int:
        """How many uniform numbers one sample uses."""
        return self._draws  # type: ignore[attr-defined]

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) of the view where the operations fix it, else None (it follows the image)."""
        moving = tuple(op for op in self.ops if not op.temporal)
        if len(moving) < len(self.ops):
            return Pipeline(moving).size
        try:
            first, second = (self._walk([0.5] * self.draws, side, side)[1:] for side in (2**14, 2**15))
            other = self._walk([0.5] * self.draws, 2**14, 2**15)[1:]
        except UserError:  # Dihedral on an image of free shape
            return None
        return first if first == second == other else None

    @property
    def enough(self) -> int | None:
        """Shorter side, in pixels, at which a decoder may deliver the image without a loss to this view.

        None where every pixel counts. A JPEG decoder that reduces by 2, 4 or 8 down to this side is several times
        faster (``Source.read(i, min_side)``).
        """
        first = next((op for op in self.ops if not op.temporal), None)
        return None if first is None else first.enough

    @property
    def spans(self) -> tuple[tuple[Op, int, int], ...]:
        """Each operation with the start and stop of its own columns in a parameter vector."""
        return self._spans  # type: ignore[attr-defined]

    def sample(self, rng: np.random.Generator, height: int, width: int) -> Params:
        """Draw the parameters of one view of one image.

        Args:
            rng: random generator; exactly one call of ``rng.random(self.draws)`` is made.
            height: the image's height in pixels.
            width: the image's width in pixels.

        Returns:
            (P,) float64, columns as :attr:`columns` names them.

        Raises:
            UserError: the image is smaller than a crop, or empty.
        """
        _check_image_size(height, width)
        return np.array(self._walk(rng.random(self.draws).tolist(), int(height), int(width))[0], np.float64)

    def sample_shape(
        self,
        rng: np.random.Generator,
        shape: tuple[int, ...],
        kind: str = "image",
        given: Mapping[int, tuple[Any, ...]] | None = None,
    ) -> tuple[Params, tuple[int, ...]]:
        """Draw the parameters of one view of one sample of any kind.

        Args:
            rng: random generator; an image draws as by :meth:`sample`.
            shape: the sample's: (H, W, C), (H, W), (T, H, W, C)...
            kind: of the field.
            given: place of an operation -> its columns, where they are drawn elsewhere.

        Returns:
            (P,) float64, or (T, P) for a clip or volume of T frames where the pipeline draws per frame; the shape of
            the view.

        Raises:
            UserError: as :meth:`sample`; an operation that can't be done to this kind.
        """
        if min(shape, default=1) < 1:
            raise UserError(f"views: the {kind} is empty ({'x'.join(map(str, shape))})")
        if not (self.per_frame and kind in FRAMED):
            return self._walk_shape(rng, shape, kind, given or {})
        rows = [self._walk_shape(rng, shape[1:], "image", given or {}) for _ in range(shape[0])]
        return np.stack([row for row, _ in rows]), (shape[0], *rows[0][1])

    def _walk_shape(
        self, rng: np.random.Generator, shape: tuple[int, ...], kind: str, given: Mapping[int, tuple[Any, ...]]
    ) -> tuple[Params, tuple[int, ...]]:
        values: list[Any] = []
        draws = sum(op.draws for place, op in enumerate(self.ops) if place not in given) if given else self.draws
        u, used = rng.random(draws).tolist(), 0
        for place, op in enumerate(self.ops):
            if place in given:  # what it draws is not asked for, only the shape that it makes
                shape = op.draw_shape([0.5] * op.draws, shape, kind)[1]
                values.extend(given[place])
            else:
                drawn, shape = op.draw_shape(u[used : used + op.draws], shape, kind)
                values.extend(drawn)
                used += op.draws
        return np.array(values, np.float64), shape

    def sample_batch(
        self, rng: np.random.Generator, n: int, height: int | np.ndarray, width: int | np.ndarray
    ) -> np.ndarray:
        """Draw the parameters of ``n`` views at once: the same as ``n`` calls of :meth:`sample`, vectorised.

        Args:
            rng: random generator.
            n: number of samples.
            height: one height for all, or (n,) heights in pixels.
            width: likewise.

        Returns:
            (n, P) float64.
        """
        return self.from_uniforms(rng.random((n, self.draws)), height, width)

    def from_uniforms(self, u: np.ndarray, height: int | np.ndarray, width: int | np.ndarray) -> np.ndarray:
        """Turn uniform numbers into parameters, for those who draw them by a scheme of their own.

        Args:
            u: (n, draws) float64 in [0, 1).
            height: one height for all, or (n,) heights in pixels.
            width: likewise.

        Returns:
            (n, P) float64.
        """
        if u.ndim != 2 or u.shape[1] != self.draws:
            raise UserError(f"Pipeline: this view needs uniform numbers of shape (n, {self.draws}), got {u.shape}")
        n = len(u)
        sizes = [np.broadcast_to(np.asarray(side, np.int64), (n,)) for side in (height, width)]
        _check_image_size(*(side.min(initial=1) for side in sizes))
        values = self._walk(u.T, *sizes)[0]
        return (
            np.stack([np.broadcast_to(np.asarray(value, np.float64), (n,)) for value in values], 1)
            if values
            else u[:, :0]
        )

    def _walk(self, u: Any, height: Any, width: Any) -> tuple[list[Any], Any, Any]:
        values: list[Any] = []
        used = 0
        for op in self.ops:
            drawn, height, width = op.draw(u[used : used + op.draws], height, width)
            values.extend(drawn)
            used += op.draws
        return values, height, width

    def explain(self, params: Params) -> list[dict[str, Any]]:
        """One sample's parameters in words: a dict per operation, ``{"op": name, column: value, ...}``."""
        check_params(self, params)
        return [
            {"op": type(op).__name__, **dict(zip(op.columns, map(float, params[start:stop]), strict=True))}
            for op, start, stop in self.spans
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, as YAML and JSON write them; :meth:`from_dict` reads it back."""
        plain = {"name": self.name, "ops": [_op_to_dict(op) for op in self.ops]}
        return plain | {"per_frame": True} if self.per_frame else plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Pipeline:
        """Read what :meth:`to_dict` wrote, or a shorter form of it.

        An operation is ``{"op": "Grayscale", "p": 0.1}``, ``{"Grayscale": {"p": 0.1}}``, or ``"Grayscale"`` alone.

        Raises:
            UserError: an operation or option that does not exist, named with those that do.
        """
        if not isinstance(data, Mapping) or "ops" not in data or set(data) - {"name", "ops", "per_frame"}:
            got = sorted(map(str, data)) if isinstance(data, Mapping) else data
            raise UserError(
                f"Pipeline: a view is a mapping with 'ops' and, if you like, 'name', 'per_frame'; got {got}"
            )
        if not isinstance(data["ops"], Sequence) or isinstance(data["ops"], str):
            raise UserError(f"Pipeline: 'ops' is a list of operations, got {data['ops']!r}")
        if not isinstance(data.get("per_frame", False), bool):
            raise UserError(f"Pipeline: 'per_frame' is true or false, got {data['per_frame']!r}")
        ops = read_each("ops", data["ops"], _op_from_dict)
        return cls(tuple(ops), name=str(data.get("name", "view")), per_frame=data.get("per_frame", False))

    def __repr__(self) -> str:
        each = ", per frame" if self.per_frame else ""
        return f"Pipeline({self.name}: {' > '.join(map(repr, self.ops)) or 'unchanged'}{each})"


def _check_image_size(height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise UserError(f"views: the image is empty ({height}x{width} pixels)")


def check_params(pipeline: Pipeline, params: np.ndarray, batch: int | None = None, frames: int | None = None) -> None:
    """Refuse parameters whose shape is not what this pipeline draws: (P,), (frames, P), (batch, P)..."""
    wanted = pipeline._shape  # type: ignore[attr-defined]
    if frames is not None and pipeline.per_frame:
        wanted = (frames, *wanted)
    if batch is not None:
        wanted = (batch, *wanted)
    if params.shape != wanted:
        raise UserError(f"views: this view's parameters have shape {wanted}, got {params.shape}; sample them from it")


def stack_params(params: Sequence[Params]) -> np.ndarray:
    """Parameters of several samples of one pipeline as one batch.

    Args:
        params: N vectors (P,).

    Returns:
        (N, P) float64.
    """
    if not len(params):
        raise UserError("stack_params: no parameters given")
    return np.stack([np.asarray(one, np.float64) for one in params])


def _op_to_dict(op: Op) -> dict[str, Any]:
    plain: dict[str, Any] = {"op": type(op).__name__}
    for field in dataclasses.fields(op):  # type: ignore[arg-type]
        value = getattr(op, field.name)
        plain[field.name] = _listed(value)
    return plain


def _listed(value: Any) -> Any:
    return [_listed(one) for one in value] if isinstance(value, tuple) else value


def read_each(key: str, values: Sequence[Any], read: Callable[[Any], Any]) -> list[Any]:
    """Read every entry of a list; an error names the key and the place."""
    entries = []
    for place, value in enumerate(values):
        try:
            entries.append(read(value))
        except UserError as error:
            raise UserError(f"{key}[{place}]: {error}") from error
    return entries


def _known() -> list[str]:
    """Names of all operations of this room: its own files', and those of its sub-rooms, which are imported."""
    import_module("selftaught.views.spec")
    room = import_module("selftaught.views").__path__
    for _, name, package in pkgutil.walk_packages(room, "selftaught.views."):
        if not package and name.count(".") > 2:
            import_module(name)
    return sorted(OPS)


def _named(data: Any) -> tuple[str, dict[str, Any]]:
    """An operation's name and options, in any of the three ways to write them."""
    if isinstance(data, str):
        return data, {}
    if isinstance(data, Mapping) and "op" in data:
        name, options = data["op"], {key: value for key, value in data.items() if key != "op"}
    elif isinstance(data, Mapping) and len(data) == 1:
        ((name, options),) = data.items()
    else:
        raise UserError(f"Pipeline: an operation is a name, or a mapping with 'op' and its options; got {data!r}")
    if not isinstance(options, Mapping | None):
        raise UserError(f"{name}: options are a mapping such as {{p: 0.5}}, got {options!r}")
    return str(name), dict(options or {})


def _op_from_dict(data: Any) -> Op:
    name, options = _named(data)
    if name not in OPS and name not in _known():
        raise UserError(f"Pipeline: no view operation {name!r}; there are {', '.join(_known())}")
    known = [field.name for field in dataclasses.fields(OPS[name])]  # type: ignore[arg-type]
    unknown = [option for option in options if option not in known]
    if unknown:
        raise UserError(f"{name}: no option {unknown[0]!r}; there are {', '.join(known) or 'none'}")
    frozen = {key: _frozen(value) for key, value in options.items()}
    try:
        return OPS[name](**frozen)
    except TypeError as error:
        raise UserError(f"{name}: {str(error).split(') ')[-1]}") from error


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
