"""How views that share a space draw: geometry once, on the coarsest grid; all else for each view on its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from selftaught.errors import UserError
from selftaught.views.operation import Op
from selftaught.views.view import View

Shape = tuple[int, ...]
Grid = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Space:
    """Views that move their pixels together.

    Args:
        name: as the views name it.
        views: two or more, or one alone.
        ops: the geometric operations that they share, on the coarsest grid.
    """

    name: str
    views: tuple[View, ...]
    ops: tuple[Op, ...]


def spaces_of(views: tuple[View, ...]) -> dict[str, Space]:
    """The spaces of a recipe by name.

    Raises:
        UserError: views of a space whose geometric operations differ, none at scale 1, a view of a view in its space.
    """
    spaces = {}
    for name in dict.fromkeys(view.space for view in views if view.space):
        members = tuple(view for view in views if view.space == name)
        _check_members(name, members)
        shared = [tuple(op.coarser(view.scale) for op in view.pipeline.ops if op.geometric) for view in members]
        for view, ops in zip(members, shared, strict=True):
            if ops != shared[0]:
                raise UserError(
                    f"Recipe: views {members[0].name!r} and {view.name!r} share space {name!r} but move differently: "
                    f"{_words(shared[0])} and {_words(ops)} on the coarsest grid"
                )
        spaces[name] = Space(name, members, shared[0])
    return spaces


def _check_members(name: str, members: tuple[View, ...]) -> None:
    coarsest = min(view.scale for view in members)
    if coarsest != 1:
        raise UserError(f"Recipe: the coarsest view of space {name!r} has scale {coarsest}; it must be 1")
    for at, view in enumerate(members):
        if view.of in {one.name for one in members[:at]}:
            raise UserError(
                f"Recipe: view {view.name!r} is made of {view.of!r}, which moved in space {name!r}; leave its space out"
            )
        if view.pipeline.per_frame and any(op.geometric for op in view.pipeline.ops):
            raise UserError(f"Recipe: view {view.name!r} moves every frame on its own and can't share space {name!r}")


def geometry(space: Space, rng: np.random.Generator, grids: Mapping[str, Grid], frames: int) -> list[tuple[Any, ...]]:
    """Draw what a space shares: the columns of each of its operations, on the coarsest grid.

    Args:
        space: whose operations are drawn.
        rng: random generator.
        grids: view -> height and width before its operations.
        frames: of its clips, where an operation picks some.

    Raises:
        UserError: grids that are not in the ratio of the views' scales; a crop larger than the coarsest.
    """
    size = _coarsest(space, grids)
    columns = []
    for op in space.ops:
        u = rng.random(op.draws).tolist()
        if op.temporal:
            columns.append(op.draw_shape(u, (frames, *size, 1), "clip")[0])
        else:
            values, *size = op.draw(u, *size)  # type: ignore[assignment]
            columns.append(values)
    return columns


def _coarsest(space: Space, grids: Mapping[str, Grid]) -> Grid:
    """Height and width of the coarsest grid.

    Where grids differ in fineness, sides may be up to one coarse pixel longer: a side of 339 is 84 or 85 at a quarter.
    """
    ground = {view.name: tuple(side // view.scale for side in grids[view.name]) for view in space.views}
    height, width = (min(grid[axis] for grid in ground.values()) for axis in (0, 1))
    finest = max(view.scale for view in space.views)
    moves_all = next((not op.pixels for op in space.ops if not op.temporal), False)
    for view in space.views:
        spare = 0 if moves_all or finest == 1 else view.scale
        for side, least in zip(grids[view.name], (height, width), strict=True):
            if side - least * view.scale > spare:
                sizes = ", ".join(f"{one.name!r} {'x'.join(map(str, grids[one.name]))}" for one in space.views)
                raise UserError(
                    f"Recipe: the views of space {space.name!r} don't cover the same ground at their scales: {sizes}"
                )
    return height, width


def columns_of(view: View, space: Space, drawn: list[tuple[Any, ...]]) -> dict[int, tuple[Any, ...]]:
    """A view's share of its space's geometry: place of the operation -> columns, on the view's own grid."""
    places = [place for place, op in enumerate(view.pipeline.ops) if op.geometric]
    given = {}
    for place, op, values in zip(places, space.ops, drawn, strict=True):
        given[place] = tuple(
            value * view.scale if name in op.pixels else value for name, value in zip(op.columns, values, strict=True)
        )
    return given


def _words(ops: tuple[Op, ...]) -> str:
    return " > ".join(map(repr, ops)) or "nothing"
