"""A recipe: which views are made of which fields of a sample, and which of them move their pixels together.

::

    Recipe((
        View("high", of="image", pipeline=Pipeline((RandomCrop(96), Dihedral()))),
        View("low", of="high", pipeline=Pipeline((Downsample(4),))),             # a degradation of a view
    ))
    Recipe((
        View("image", of="image", pipeline=simclr(96)[0], space="frame"),        # one box, one flip for both
        View("mask", of="mask", pipeline=simclr(96)[0], space="frame"),          # nearest; colour leaves masks alone
    ))

All randomness is in :meth:`Recipe.sample`, which takes one generator per sample; :meth:`Recipe.render` (one sample,
NumPy) and :meth:`Recipe.render_batch` (a batch, torch) make the same pixels of one set of parameters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from selftaught.errors import UserError
from selftaught.views._space import Shape, Space, columns_of, geometry, spaces_of
from selftaught.views.operation import FRAMED, HEIGHT_AXIS
from selftaught.views.pipeline import Params, Pipeline, read_each
from selftaught.views.view import View

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ChosenFrames", "Recipe"]

_BY_AXES = {2: "mask", 3: "image", 4: "clip"}


@dataclasses.dataclass(frozen=True)
class ChosenFrames:
    """Which frames of a sample's clips are needed, drawn before anything is decoded (:meth:`Recipe.frames`).

    Args:
        read: field -> ascending frame numbers to decode; a field that isn't named is needed whole.
        params: view -> the columns of the operation that picks its frames: their numbers, and what else it drew.
    """

    read: Mapping[str, np.ndarray]
    params: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Views of a sample's fields, in the order in which they are made.

    Args:
        views: one or more; a view of a view comes after it.
        kinds: field -> kind ("image", "mask", "depth", "clip", "volume"). A field that isn't named is taken by
            its axes: two a mask, three an image, four a clip.

    Raises:
        UserError: no view, two of one name, two facts of one name, or a space whose views don't fit.
    """

    views: tuple[View, ...]
    kinds: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        views = tuple(self.views) if isinstance(self.views, Sequence) else (self.views,)
        if not views or not all(isinstance(view, View) for view in views):
            raise UserError("Recipe: give one View or more")
        object.__setattr__(self, "views", views)
        for at, view in enumerate(views):
            before, after = ({one.name for one in part} for part in (views[:at], views[at + 1 :]))
            if view.name in before:
                raise UserError(f"Recipe: two views are named {view.name!r}; rename one")
            if view.of in after - before:
                raise UserError(
                    f"Recipe: view {view.name!r} is made of {view.of!r}, a later view's name; put that first"
                )
            _check_facts(view)
        self._spaces  # noqa: B018  (its checks)

    @cached_property
    def _roots(self) -> dict[str, str]:
        """View -> the field that it goes back to."""
        roots: dict[str, str] = {}
        for view in self.views:
            roots[view.name] = roots.get(view.of, view.of)
        return roots

    @cached_property
    def _moved_first(self) -> set[str]:
        """The fields of which every view begins with an operation that only moves pixels."""
        first: dict[str, list[bool]] = {}
        for view in self.views:
            if self._parents[view.name] is None:
                first.setdefault(view.of, []).append(bool(view.pipeline.ops) and view.pipeline.ops[0].any_dtype)
        return {field for field, moves in first.items() if all(moves)}

    @cached_property
    def _parents(self) -> dict[str, View | None]:
        """View -> the view that it is made of, if that is not a field."""
        parents: dict[str, View | None] = {}
        for at, view in enumerate(self.views):
            parents[view.name] = next((other for other in self.views[:at] if other.name == view.of), None)
        return parents

    @cached_property
    def _pickers(self) -> dict[str, Any]:
        """View -> the operation that picks frames, of those that begin with one."""
        first = ((view.name, view.pipeline.ops[:1]) for view in self.views)
        return {name: ops[0] for name, ops in first if ops and ops[0].temporal}

    @cached_property
    def _spaces(self) -> dict[str, Space]:
        return spaces_of(self.views)

    @classmethod
    def of(cls, pipelines: Sequence[Pipeline], field: str = "image") -> Recipe:
        """The views of a list of pipelines, all of one field, each drawn independently as before.

        A view gets its pipeline's name where these differ, else "view 1", "view 2"...
        """
        names = [pipeline.name for pipeline in pipelines]
        if len(set(names)) < len(names):
            names = [f"view {at + 1}" for at in range(len(names))]
        return cls(tuple(View(name, field, one) for name, one in zip(names, pipelines, strict=True)))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as YAML and JSON write them; :meth:`from_dict` reads them back."""
        plain: dict[str, Any] = {"views": [view.to_dict() for view in self.views]}
        return plain | ({"kinds": dict(self.kinds)} if self.kinds else {})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """Read what :meth:`to_dict` wrote.

        Raises:
            UserError: it names the view and the operation.
        """
        if set(data) - {"views", "kinds"} or not isinstance(data.get("kinds", {}), Mapping):
            raise UserError(f"Recipe: a mapping with 'views', or also 'kinds' of fields; got {', '.join(data)}")
        return cls(tuple(read_each("views", data["views"], View.from_dict)), kinds=dict(data.get("kinds", {})))

    def with_kinds(self, kinds: Mapping[str, str]) -> Recipe:
        """The same recipe for a source that names its fields' kinds."""
        return dataclasses.replace(self, kinds=dict(kinds))

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """The fields that it needs, in order of first use."""
        return tuple(dict.fromkeys(self._roots.values()))

    @cached_property
    def enough(self) -> dict[str, int | None]:
        """Per field: the shorter side at which a decoder may deliver it without a loss to any view, or None.

        None where a view needs every pixel, or shares its space with another field, which must keep its own grid. A
        view that only picks frames for others needs what they need.
        """
        enough: dict[str, int | None] = {}
        for field in self.fields:
            views = [view for view in self.views if self._parents[view.name] is None and view.of == field]
            enough[field] = _largest([self._enough(view) for view in views])
        return enough

    def _enough(self, view: View) -> int | None:
        if self._shared(view):
            return None
        if not view.name.startswith("_") or any(not op.temporal for op in view.pipeline.ops):
            return view.pipeline.enough
        return _largest([self._enough(other) for other in self.views if self._parents[other.name] is view])

    def frames(self, rng: np.random.Generator, counts: Mapping[str, int]) -> ChosenFrames:
        """Draw which frames of each clip are needed, before it is decoded.

        Args:
            rng: the sample's random generator, to be handed on to :meth:`sample`.
            counts: field -> number of its frames. Fields without a view that picks frames may be left out.

        Returns:
            What to read, and what :meth:`sample` wants to know of it.
        """
        params: dict[str, np.ndarray] = {}
        drawn: dict[str, np.ndarray] = {}
        read: dict[str, list[np.ndarray]] = {}
        whole = set()
        for view in self.views:
            if self._parents[view.name] is not None:
                continue
            picker = self._pickers.get(view.name)
            if picker is None:
                whole.add(view.of)
                continue
            if view.of not in counts:
                raise UserError(f"Recipe: view {view.name!r} picks frames; say how many {view.of!r} has")
            if not view.space or view.space not in drawn:
                u = rng.random(picker.draws).tolist()
                drawn[view.space] = np.array(picker.draw_shape(u, (int(counts[view.of]), 1, 1, 1), "clip")[0])
            params[view.name] = drawn[view.space]
            read.setdefault(view.of, []).append(params[view.name][: picker.shown])
        needed = {field: np.unique(np.concatenate(all_)).astype(np.int64) for field, all_ in read.items()}
        return ChosenFrames({field: numbers for field, numbers in needed.items() if field not in whole}, params)

    def sample(
        self, rng: np.random.Generator, sizes: Mapping[str, Shape], frames: ChosenFrames | None = None
    ) -> dict[str, Params]:
        """Draw the parameters of every view of one sample.

        Args:
            rng: random generator; the result depends on its state, the sizes and the recipe alone.
            sizes: field -> shape of its value, (H, W, C), (H, W), (T, H, W, C)...
            frames: what :meth:`frames` drew for this sample, where only those frames were read; None (default) draws
                them here. Both ways give the same views.

        Returns:
            View -> (P,) float64, or (T, P) where a clip's pipeline draws per frame.

        Raises:
            UserError: a missing field, a sample smaller than a crop, grids of a space that don't fit.
        """
        for field in self.fields:
            if field not in sizes:
                raise UserError(f"Recipe: no field {field!r} in the sample; it has {', '.join(sizes) or 'none'}")
        if frames is None and self._pickers:
            counts = {field: shape[0] for field, shape in sizes.items() if self._kind(field, len(shape)) in FRAMED}
            frames = dataclasses.replace(self.frames(rng, counts), read={})
        picked, drawn = self._picked(frames) if frames is not None else {}, {}
        shapes: dict[str, Shape] = {}
        params: dict[str, Params] = {}
        for view in self.views:
            space = self._space(view)
            if space is not None and space.name not in drawn:
                drawn[space.name] = self._geometry(space, rng, shapes, sizes)
            given = {} if space is None else columns_of(view, space, drawn[space.name])
            if view.name in picked:
                given[0] = tuple(picked[view.name])
            shape, kind = self._before(view, shapes, sizes)
            params[view.name], shapes[view.name] = view.pipeline.sample_shape(rng, shape, kind, given)
        return params

    def render(
        self,
        sample: Mapping[str, Any],
        params: Mapping[str, Params],
        ready: Mapping[str, Callable[[np.ndarray], np.ndarray]] | None = None,
    ) -> dict[str, Any]:
        """Make every view of one sample on the CPU.

        Args:
            sample: field -> (H, W, C), (H, W), (T, H, W, C)... array.
            params: from :meth:`sample`.
            ready: field -> function of an array that changes its pixels one by one, into the units that views are made
                in; see :func:`selftaught.views.render`. A field that isn't named is in them (default: all are).

        Returns:
            View -> array in the same layout, and ``"<view>.<fact>"`` -> what its operations report.
        """
        from selftaught.views.cpu import render

        late, values = {}, dict(sample)
        for field, change in (ready or {}).items():
            if field in self._moved_first:
                late[field] = {"ready": change}
            else:
                values[field] = change(values[field])
        return self._made(values, params, lambda value: np.ndim(value), render, late)

    def render_batch(self, batch: Mapping[str, Tensor], params: Mapping[str, np.ndarray | Tensor]) -> dict[str, Tensor]:
        """Make every view of a batch on its device.

        Args:
            batch: field -> (N, C, H, W), (N, H, W), (N, C, T, H, W)... tensor.
            params: view -> parameters of all samples, from :meth:`stack_params`.

        Returns:
            View -> tensor in the same layout, and ``"<view>.<fact>"`` -> what its operations report, (N, ...).
        """
        from selftaught.views.device import render_batch

        return self._made(batch, params, lambda value: value.ndim - 1, render_batch)

    @staticmethod
    def stack_params(params: Sequence[Mapping[str, Params]]) -> dict[str, np.ndarray]:
        """Parameters of several samples as one batch: view -> (N, P)."""
        if not params:
            raise UserError("Recipe.stack_params: no parameters given")
        return {name: np.stack([one[name] for one in params]) for name in params[0]}

    def _made(
        self,
        values: Mapping[str, Any],
        params: Mapping[str, Any],
        axes: Any,
        render: Any,
        late: Mapping[str, dict[str, Any]] | None = None,
    ) -> dict[str, Any]:
        """All views; ``late``: field -> what `render` is told besides for the views of that field."""
        made: dict[str, Any] = {}
        batch: dict[str, Any] = {}
        for view in self.views:
            if view.of not in made and view.of not in values:
                raise UserError(f"Recipe: no field {view.of!r} in the sample; it has {', '.join(values) or 'none'}")
            value = made[view.of] if view.of in made else values[view.of]
            if view.pipeline.ops:
                if view.name not in params:
                    raise UserError(f"Recipe: no parameters for view {view.name!r}; sample them from this recipe")
                kind = self._kind(self._roots[view.name], axes(value))
                facts: dict[str, Any] = {}
                more = (late or {}).get(view.of, {}) if view.of not in made else {}
                value = render(value, view.pipeline, params[view.name], kind=kind, facts=facts, **more)
            else:
                facts = {}
            made[view.name] = value
            if not view.name.startswith("_"):
                batch[view.name] = value
                batch |= {f"{view.name}.{name}": fact for name, fact in facts.items()}
        return batch

    def kind_of(self, view: str, axes: int) -> str:
        """The kind of a view's values, which have ``axes`` axes in one sample; "value" for what views don't know.

        Raises:
            UserError: no view of that name.
        """
        if view not in self._roots:
            raise UserError(f"Recipe: no view {view!r}; there are {', '.join(self._roots)}")
        return self._kind(self._roots[view], axes)

    def _kind(self, field: str, axes: int) -> str:
        return self.kinds.get(field) or _BY_AXES.get(axes, "value")

    def _space(self, view: View) -> Space | None:
        return self._spaces.get(view.space)

    def _shared(self, view: View) -> bool:
        """Whether another field moves together with this view's."""
        space = self._space(view)
        return space is not None and len({self._roots[one.name] for one in space.views}) > 1

    def _before(self, view: View, shapes: Mapping[str, Shape], sizes: Mapping[str, Shape]) -> tuple[Shape, str]:
        """The shape and kind of what a view is made of; ``shapes`` are those of the views so far."""
        shape = shapes[view.of] if self._parents[view.name] is not None else tuple(sizes[view.of])
        return shape, self._kind(self._roots[view.name], len(shape))

    def _geometry(
        self, space: Space, rng: np.random.Generator, shapes: Mapping[str, Shape], sizes: Mapping[str, Shape]
    ) -> list[tuple[Any, ...]]:
        """Draw what a space shares, at its first view."""
        grids, frames = {}, 0
        for view in space.views:
            parent = self._parents[view.name]
            if parent is not None and parent.name not in shapes:
                raise UserError(
                    f"Recipe: view {view.name!r} shares space {space.name!r}; put {parent.name!r} before it"
                )
            shape, kind = self._before(view, shapes, sizes)
            if kind not in HEIGHT_AXIS:
                raise UserError(f"Recipe: view {view.name!r} has no height and width to share in space {space.name!r}")
            at = HEIGHT_AXIS[kind]
            grids[view.name] = (shape[at], shape[at + 1])
            frames = shape[0] if at else frames
        return geometry(space, rng, grids, frames)

    def _picked(self, frames: ChosenFrames) -> dict[str, np.ndarray]:
        """Each view's frames as places among those that were read."""
        places = {}
        for name, columns in frames.params.items():
            read, picker = frames.read.get(self._roots[name]), self._pickers.get(name)
            places[name] = columns
            if read is not None and picker is not None:
                numbers, more = np.split(columns, [picker.shown])
                places[name] = np.concatenate([np.searchsorted(read, numbers), more])
        return places


def _largest(sides: list[int | None]) -> int | None:
    """The largest of the sides; None where one of them is not known, or there is none."""
    known = [side for side in sides if side is not None]
    return max(known) if known and len(known) == len(sides) else None


def _check_facts(view: View) -> None:
    names = [name for op in view.pipeline.ops for name in op.facts]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"Recipe: two operations of view {view.name!r} report {twice!r}; make two views of them")
