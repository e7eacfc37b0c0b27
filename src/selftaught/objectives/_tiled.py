"""The log-sum-exp over all similarities of two sets of vectors, without ever holding the matrix of similarities.

Every objective of the InfoNCE family needs, for each query a_i, the log-partition over the keys b_j not left out:

    lse_i = log sum_{j not in E_i} exp(scale * <a_i, b_j>)

The plain way writes the N x M matrix several times, forward and backward. Here one tile of it lives at a time: the
forward pass keeps only the N results, the backward pass makes each tile again from the vectors. Extra memory is
linear in N + M. The idea is that of Inf-CL (arXiv 2410.17243). Only second derivatives (``create_graph=True``) take the
plain way, with the N x M matrix and to any order.

Two things make it faster than the plain way on a processor, too. A tile stays in the cache between the matrix product
and the exponential. And where no logit can leave [-40, 40] (unit vectors at temperature 0.025 and above) the
exponentials need no running maximum: float32 holds exp(40) times any number of keys, and exp(-40), with full relative
precision. If queries and keys are the same vectors, only the upper half of the tiles is computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from selftaught.objectives._common import without_autocast

SAFE_LOGIT = 40.0


def _tile_side(device: torch.device) -> int:
    """Side of a tile. One thread is fastest within its second-level cache; several must meet less often than that."""
    if device.type != "cpu":
        return 4096
    return 512 if torch.get_num_threads() == 1 else 2048


class _Problem(NamedTuple):
    """All pairs of a (N, D) and b (M, D), walked tile by tile; with ``mirrored`` a is b and j < i tiles are skipped."""

    a: Tensor
    b: Tensor
    scale: float
    exclude: Tensor | None
    group: Tensor | None
    mirrored: bool
    tile: int

    def tiles(self) -> Iterator[tuple[slice, slice, Tensor]]:
        """Yield (rows, columns, logits); the logits are -inf where left out and live in a buffer that is used again."""
        step, buffer = self.tile, self.a.new_empty(min(self.tile, len(self.a)) * min(self.tile, len(self.b)))
        for top in range(0, len(self.a), step):
            rows = slice(top, min(top + step, len(self.a)))
            queries = self.a[rows]
            left_out = None if self.exclude is None else _LeftOut(self.exclude[rows])
            for left in range(top if self.mirrored else 0, len(self.b), step):
                columns = slice(left, min(left + step, len(self.b)))
                keys = self.b[columns]
                logits = buffer[: len(queries) * len(keys)].view(len(queries), len(keys))
                torch.addmm(logits, queries, keys.T, beta=0, alpha=self.scale, out=logits)
                if left_out is not None:
                    left_out.strike(logits, left)
                if self.group is not None and self._share_a_group(rows, columns):
                    logits.masked_fill_(self.group[rows].unsqueeze(1) == self.group[columns], -math.inf)
                yield rows, columns, logits

    def _share_a_group(self, rows: slice, columns: slice) -> bool:
        """Whether a tile on the diagonal or right of it holds pairs of one group; always, where reading costs."""
        assert self.group is not None
        return self.group.device.type != "cpu" or bool(self.group[columns.start] <= self.group[rows.stop - 1])


class _LeftOut:
    """The keys ``exclude`` (rows, k) that a block of queries leaves out, tile by tile."""

    def __init__(self, exclude: Tensor) -> None:
        self.columns = exclude.unbind(1)
        # where reading is free: the lowest and highest key of every column, so that most tiles need no work
        self.spans = (
            [tuple(int(x) for x in c.aminmax()) for c in self.columns] if exclude.device.type == "cpu" else None
        )

    def strike(self, logits: Tensor, left: int) -> None:
        """Write -inf at the keys left out; ``left`` is the tile's first key, and keys outside it change nothing."""
        width = logits.shape[1]
        for number, keys in enumerate(self.columns):
            low, high = self.spans[number] if self.spans is not None else (left - 1, left)
            if high < left or low >= left + width:
                continue
            at = (keys - left).unsqueeze(1)
            if low >= left and high < left + width:
                logits.scatter_(1, at, -math.inf)
            else:  # at clamped positions: a search for the hits would make the host wait for a GPU
                inside = (at >= 0) & (at < width)
                at = at.clamp(0, width - 1)
                logits.scatter_(1, at, logits.gather(1, at).masked_fill(inside, -math.inf))


class _Sums:
    """A running log-sum-exp for each of n rows (or columns): plain sums of bounded logits, else maximum and sum."""

    def __init__(self, like: Tensor, n: int, bounded: bool) -> None:
        self.bounded = bounded
        self.total = like.new_zeros(n)
        self.maximum = like.new_full((n,), 0.0 if bounded else -math.inf)

    def add(self, where: slice, tile: Tensor, dim: int) -> None:
        """Take in a tile of exponentials (bounded) or of logits (not bounded), summed over ``dim``."""
        if self.bounded:
            self.total[where] += tile.sum(dim)
            return
        old = self.maximum[where]
        new = torch.maximum(old, tile.amax(dim))
        shift = new.masked_fill(new.isneginf(), 0.0)  # a row with nothing in it yet: -inf - -inf would be NaN
        self.total[where] = self.total[where] * (old - shift).exp() + (tile - shift.unsqueeze(dim)).exp_().sum(dim)
        self.maximum[where] = new

    def value(self) -> Tensor:
        """The log-sum-exp so far; -inf where nothing was summed."""
        return self.maximum + self.total.log()


class _TiledLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, a: Tensor, b: Tensor, exclude: Tensor | None, group: Tensor | None, scale: float, columns: bool,
        mirrored: bool, bounded: bool, tile: int,
    ) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
        problem = _Problem(a, b, scale, exclude, group, mirrored, tile)
        over_rows = _Sums(a, len(a), bounded)
        over_columns = over_rows if mirrored else _Sums(a, len(b), bounded) if columns else None
        for row_range, column_range, logits in problem.tiles():
            values = logits.exp_() if bounded else logits
            over_rows.add(row_range, values, 1)
            if over_columns is not None and not (mirrored and row_range == column_range):
                over_columns.add(column_range, values, 0)
        row_lse = over_rows.value()
        column_lse = row_lse if mirrored or over_columns is None else over_columns.value()
        ctx.save_for_backward(a, b, exclude, group, row_lse, column_lse)
        ctx.settings = (scale, mirrored, bounded, tile)
        return (row_lse, column_lse) if columns else row_lse

    @staticmethod
    def backward(ctx: Any, row_gradient: Tensor, column_gradient: Tensor | None = None) -> tuple[Tensor | None, ...]:
        a, b, exclude, group, row_lse, column_lse = ctx.saved_tensors
        scale, mirrored, bounded, tile = ctx.settings
        problem = _Problem(a, b, scale, exclude, group, mirrored, tile)
        with without_autocast(a.device):
            if torch.is_grad_enabled():  # create_graph=True: this derivative is to be differentiated itself
                return *_plain_gradients(problem, row_gradient, column_gradient), *[None] * 7
            lse, gradients = (row_lse, column_lse), (row_gradient, column_gradient)
            return *_tiled_gradients(problem, lse, gradients, bounded, ctx.needs_input_grad), *[None] * 7


def _tiled_gradients(
    problem: _Problem, lse: tuple[Tensor, Tensor], gradients: tuple[Tensor, Tensor | None], bounded: bool,
    needed: tuple[bool, ...],
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """Derivatives with respect to a and b, each tile made again; those of a mirrored problem are all in the first."""
    a, b, mirrored = problem.a, problem.b, problem.mirrored
    by_row = _Weights(lse[0], gradients[0] * problem.scale, bounded)
    by_column = by_row if mirrored else None
    if gradients[1] is not None:
        by_column = _Weights(lse[1], gradients[1] * problem.scale, bounded)
    grad_a = torch.zeros_like(a) if needed[0] else None
    grad_b = grad_a if mirrored else torch.zeros_like(b) if needed[1] else None
    for rows, cols, logits in problem.tiles():
        weights = _tile_weights(logits, by_row, rows, by_column, cols, bounded)
        if grad_a is not None:
            grad_a[rows].addmm_(weights, b[cols])
        if grad_b is not None and not (mirrored and rows == cols):
            grad_b[cols].addmm_(weights.T, a[rows])
    return grad_a, None if mirrored else grad_b


def _plain_gradients(
    problem: _Problem, row_gradient: Tensor, column_gradient: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """The same over the whole matrix, by operations that autograd follows."""
    a, b, scale, exclude, group, mirrored, _ = problem
    logits, left_out = scale * (a @ b.T), torch.zeros(len(a), len(b) + 1, dtype=torch.bool, device=a.device)
    if exclude is not None:  # one column more takes what leaves out nothing
        left_out.scatter_(1, torch.where((exclude < 0) | (exclude > len(b)), len(b), exclude), True)
    left_out = left_out[:, :-1]
    if group is not None:
        left_out = left_out | (group.unsqueeze(1) == group)
    logits = logits.masked_fill(left_out, -math.inf)
    weights = _softmax(logits, 1) * row_gradient.unsqueeze(1)
    if mirrored:
        return scale * (weights + weights.T) @ a, None
    if column_gradient is not None:
        weights = weights + _softmax(logits, 0) * column_gradient
    return scale * weights @ b, scale * weights.T @ a


def _softmax(logits: Tensor, dim: int) -> Tensor:
    nothing = logits.isneginf().all(dim, keepdim=True)
    return logits.masked_fill(nothing, 0.0).softmax(dim).masked_fill(nothing, 0.0)


class _Weights:
    """What turns a tile of logits into derivatives: gradient * exp(logit - lse), for rows or for columns."""

    def __init__(self, lse: Tensor, gradient: Tensor, bounded: bool) -> None:
        self.lse = torch.where(lse.isneginf(), math.inf, lse)  # nothing was summed: no derivative either
        self.gradient = gradient * (-self.lse).exp() if bounded else gradient

    def of(self, logits: Tensor, where: slice, dim: int) -> Tensor:
        shifted = logits - self.lse[where].unsqueeze(dim)
        return shifted.exp_().mul_(self.gradient[where].unsqueeze(dim))


def _tile_weights(
    logits: Tensor, by_row: _Weights, rows: slice, by_column: _Weights | None, cols: slice, bounded: bool
) -> Tensor:
    """Derivative of the weighted sum of all results with respect to one tile of logits, over ``scale``."""
    if bounded:
        factor = by_row.gradient[rows].unsqueeze(1)
        if by_column is not None:
            factor = factor + by_column.gradient[cols]
        return logits.exp_().mul_(factor)
    weights = by_row.of(logits, rows, 1)
    return weights if by_column is None else weights.add_(by_column.of(logits, cols, 0))


def _is_bounded(a: Tensor, b: Tensor, scale: float, bound: float | None) -> bool:
    """Whether no logit can leave [-SAFE_LOGIT, SAFE_LOGIT]; on a GPU only a ``bound`` that the caller knows counts."""
    if bound is not None:
        return bound <= SAFE_LOGIT
    if a.device.type != "cpu" or not len(a) or not len(b):
        return False  # reading the norms would make the host wait for the device in every step
    with torch.no_grad():
        longest = torch.linalg.vector_norm(a, dim=1).amax() * torch.linalg.vector_norm(b, dim=1).amax()
        return bool(longest * abs(scale) <= SAFE_LOGIT)


def _apply(
    a: Tensor, b: Tensor, scale: float | Tensor, exclude: Tensor | None, bound: float | Tensor | None,
    tile: int | None, columns: bool = False, mirrored: bool = False, group: Tensor | None = None,
) -> Any:  # fmt: skip
    tile = tile or _tile_side(a.device)
    with without_autocast(a.device):
        if isinstance(scale, Tensor):  # its gradient comes through the vectors
            if mirrored:
                a = b = a * scale.reshape(()).sqrt()
            else:
                a = a * scale.reshape(-1, 1)
            scale, bound = 1.0, None
        bounded = _is_bounded(a, b, scale, None if isinstance(bound, Tensor) else bound)
        return _TiledLogSumExp.apply(a, b, exclude, group, float(scale), columns, mirrored, bounded, tile)


def lse_rows(
    queries: Tensor,
    keys: Tensor,
    *,
    scale: float | Tensor = 1.0,
    exclude: Tensor | None = None,
    bound: float | Tensor | None = None,
    tile: int | None = None,
) -> Tensor:
    """Log-sum-exp over the keys for every query, in memory linear in N + M, with gradient into both.

    Args:
        queries: (N, D) float32 or float64.
        keys: (M, D), the same type.
        scale: factor on every similarity, 1/temperature; a tensor of shape () or (N,) (one per query) gets a gradient.
        exclude: (N, k) int64, for each query the k keys to leave out; -1 leaves out nothing.
        bound: an upper bound of |scale * <a, b>| where the caller knows one (1/temperature for unit vectors);
            it spares the search for maxima. Too small a bound can overflow. Not used with a tensor for a scale.
        tile: side of a tile; the default suits the device.

    Returns:
        (N,); -inf for a query all of whose keys are left out.
    """
    return _apply(queries, keys, scale, exclude, bound, tile)


def lse_rows_and_columns(
    queries: Tensor,
    keys: Tensor,
    *,
    scale: float | Tensor = 1.0,
    exclude: Tensor | None = None,
    bound: float | Tensor | None = None,
    tile: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Both directions over one matrix of similarities: (N,) over the keys and (M,) over the queries.

    A pair that ``exclude`` names is left out of both. Arguments as in :func:`lse_rows`.
    """
    return _apply(queries, keys, scale, exclude, bound, tile, columns=True)


def lse_self(
    x: Tensor,
    *,
    scale: float | Tensor = 1.0,
    exclude: Tensor | None = None,
    group: Tensor | None = None,
    bound: float | Tensor | None = None,
    tile: int | None = None,
) -> Tensor:
    """:func:`lse_rows` of (N, D) vectors with themselves, at half the work.

    Args:
        x: (N, D) float32 or float64.
        scale: as in :func:`lse_rows`; a tensor must be above 0 and of shape ().
        exclude: (N, k), mutual: where i leaves out j, j leaves out i.
        group: (N,) int64, rising; the vectors of a query's own group are left out, itself among them.
        bound: as in :func:`lse_rows`.
        tile: as in :func:`lse_rows`.
    """
    return _apply(x, x, scale, exclude, bound, tile, mirrored=True, group=group)
