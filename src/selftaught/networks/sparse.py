"""Convolutions on the occupied voxels of a grid alone, in plain PyTorch.

:class:`Voxels` holds the occupied places of a batch of scenes. Which of them are neighbours is found once, by binary
search among their keys, and kept; each convolution then gathers, multiplies and adds pair by pair. Memory is linear in
the voxels, in the backward pass too: gathered features are made again instead of kept.
"""

from __future__ import annotations

import math
from itertools import pairwise, product
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from selftaught.errors import UserError

__all__ = ["InverseConv", "StridedConv", "SubmanifoldConv", "Voxels", "pyramid", "restricted", "scenes_of", "voxelise"]

_SPAN = 1 << 15
"""Pairs that are gathered at once on a CPU."""

Pairs = list[tuple[Tensor, Tensor] | None]


class Voxels:
    """The occupied places of a grid.

    Args:
        place: (V, 4) int64, no two alike: the scene's number, and x, y, z (which may be negative).

    Attributes:
        place: as given.

    Raises:
        UserError: another shape, or not whole numbers.
    """

    def __init__(self, place: Tensor) -> None:
        if place.dim() != 2 or place.shape[1] != 4 or place.is_floating_point():
            raise UserError(f"voxels are whole numbers (V, 4): scene, x, y, z; got {tuple(place.shape)} {place.dtype}")
        self.place = place.long()
        self._family: tuple[Voxels, Tensor, Tensor] | None = None
        self._pairs: dict[int, Pairs] = {}
        self._orders: dict[Any, Any] = {}

    def __len__(self) -> int:
        return len(self.place)

    @property
    def offset(self) -> Tensor:
        """(N,) where each scene ends, if scenes lie one after the other."""
        count = int(self.place[:, 0].max()) + 1 if len(self) else 0
        return torch.bincount(self.place[:, 0], minlength=count).cumsum(0)

    def neighbours(self, kernel: int = 3) -> Pairs:
        """For each of the kernel^3 offsets, in the order of (x, y, z): voxels (i, j) with place j = place i + offset.

        None stands for offset 0, where i = j. Found once.

        Raises:
            UserError: an even kernel; two voxels at one place.
        """
        if kernel % 2 == 0 or kernel < 1:
            raise UserError(f"kernel={kernel}: a submanifold convolution has an odd kernel")
        if kernel not in self._pairs:
            self._pairs[kernel] = self._search(kernel // 2)
        return self._pairs[kernel]

    def _search(self, reach: int) -> Pairs:
        keys, stride = _keys(self.place, reach)
        keys, order = keys.sort()
        if len(keys) > 1 and bool((keys[1:] == keys[:-1]).any()):
            raise UserError("two voxels lie at one place; voxelise the points first")
        offsets = list(product(range(-reach, reach + 1), repeat=3))
        found: Pairs = [None] * len(offsets)
        for at in range(len(offsets) // 2 + 1, len(offsets)):  # those before are these, seen from the other side
            step = sum(o * s for o, s in zip(offsets[at], stride, strict=True))
            place = torch.searchsorted(keys, keys + step)
            hit = (keys[place.clamp(max=len(keys) - 1)] == keys + step).nonzero()[:, 0]
            i, j = order[hit], order[place[hit]]
            found[at] = (i, j)
            found[len(offsets) - 1 - at] = (j, i)
        return found

    def coarsen(self) -> Voxels:
        """The voxels of twice the edge that contain these, in ascending order of scene, x, y, z; found once."""
        return self.family()[0]

    def family(self) -> tuple[Voxels, Tensor, Tensor]:
        """The voxels of :meth:`coarsen`, (V,) which of them contains each voxel, and (V,) which of its 8 parts it is.

        Part 4 (x mod 2) + 2 (y mod 2) + z mod 2.
        """
        if self._family is None:
            up = self.place.clone()
            up[:, 1:] >>= 1
            keys, _ = _keys(up, 0)
            unique, parent = keys.unique(return_inverse=True)
            first = torch.empty(len(unique), 4, dtype=torch.long, device=up.device)
            first[parent] = up
            low = self.place[:, 1:] & 1
            self._family = Voxels(first), parent, low[:, 0] * 4 + low[:, 1] * 2 + low[:, 2]
        return self._family

    def joins(self, coarse: Voxels, parent: Tensor, slot: Tensor) -> None:
        """Say what :meth:`family` gives, where it is known already."""
        self._family = coarse, parent, slot

    def find(self, query: Tensor) -> Tensor:
        """Which voxel lies at each place of ``query`` (Q, 4) int64; -1 where there is none."""
        if not len(self):
            return query.new_full((len(query),), -1)
        keys, order, low, sides = self.kept("sorted", self._sorted)
        rel = query[:, 1:] - low
        inside = ((rel >= 0) & (rel < sides)).all(1) & (query[:, 0] >= 0)
        x, y, z = rel.clamp(min=0).unbind(1)
        wanted = ((query[:, 0] * sides[0] + x) * sides[1] + y) * sides[2] + z
        at = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
        return torch.where(inside & (keys[at] == wanted), order[at], -1)

    def _sorted(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        keys, _ = _keys(self.place, 0)
        low = self.place[:, 1:].amin(0)
        return *keys.sort(), low, self.place[:, 1:].amax(0) - low + 1

    def kept(self, key: Any, make: Any) -> Any:
        """What ``make()`` gives, made once for these voxels."""
        if key not in self._orders:
            self._orders[key] = make()
        return self._orders[key]


def pyramid(place: Tensor, levels: int) -> list[Voxels]:
    """Voxels and, level by level, those of twice the edge that contain them.

    Args:
        place: (V, 4) as :class:`Voxels` takes it.
        levels: 1 or more.
    """
    found = [Voxels(place)]
    for _ in range(levels - 1):
        found.append(found[-1].coarsen())
    return found


def restricted(levels: list[Voxels], keep: list[Tensor]) -> list[Voxels]:
    """A pyramid without some of its voxels, which are taken out: those left have no neighbours there.

    Args:
        levels: from :func:`pyramid`.
        keep: (V_l,) bool per level, nested: a voxel stays only where its parent stays, a parent where a child does.

    Returns:
        Levels whose voxels come in the order of the given ones.
    """
    found = [Voxels(level.place[k]) for level, k in zip(levels, keep, strict=True)]
    for at, (fine, coarse) in enumerate(pairwise(found)):
        number = keep[at + 1].cumsum(0) - 1
        _, parent, slot = levels[at].family()
        fine.joins(coarse, number[parent[keep[at]]], slot[keep[at]])
    return found


def voxelise(coord: Tensor, offset: Tensor, size: float) -> tuple[Tensor, Tensor]:
    """Points as voxels, each scene counted from its own lowest x, y and z.

    Args:
        coord: (M, 3) in metres, scenes end to end.
        offset: (N,) where each scene ends.
        size: edge of a voxel in metres.

    Returns:
        place (V, 4) int64 in ascending order of scene, x, y, z; and (M,) which voxel each point lies in.

    Raises:
        UserError: a size that isn't above 0; offsets that don't end at M.
    """
    if not size > 0:
        raise UserError(f"voxels of {size} metres: their edge is above 0")
    scene = scenes_of(offset)
    if len(scene) != len(coord):
        raise UserError(f"{len(coord)} points, and the last scene ends at {len(scene)}")
    grid = (coord / size).floor().long()
    low = torch.full((len(offset), 3), torch.iinfo(torch.long).max, device=coord.device)
    low = low.scatter_reduce(0, scene[:, None].expand(-1, 3), grid, "amin")
    grid = torch.cat((scene[:, None], grid - low[scene]), 1)
    keys, _ = _keys(grid, 0)
    unique, inverse = keys.unique(return_inverse=True)
    place = torch.empty(len(unique), 4, dtype=torch.long, device=coord.device)
    place[inverse] = grid
    return place, inverse


def scenes_of(offset: Tensor) -> Tensor:
    """(M,) int64, the scene of every point, of the ends (N,) of scenes."""
    counts = torch.diff(offset, prepend=offset.new_zeros(1))
    return torch.repeat_interleave(torch.arange(len(offset), device=offset.device), counts)


def _keys(place: Tensor, room: int) -> tuple[Tensor, tuple[int, int, int]]:
    """A number for each place (V, 4), different for different ones, and what a step along x, y and z adds to it.

    ``room`` voxels beyond the occupied ones have keys of their own.
    """
    if not len(place):
        return place[:, 0], (0, 0, 0)
    low = place[:, 1:].amin(0)
    sides = [int(s) + 1 + 2 * room for s in (place[:, 1:].amax(0) - low).tolist()]
    if (int(place[:, 0].max()) + 1) * math.prod(sides) >= 1 << 62:
        raise UserError(f"voxels spread over {' x '.join(map(str, sides))} places: use larger voxels")
    x, y, z = (place[:, 1:] - low + room).unbind(1)
    keys = ((place[:, 0] * sides[0] + x) * sides[1] + y) * sides[2] + z
    return keys, (sides[1] * sides[2], sides[2], 1)


class _Joined(NamedTuple):
    """Pairs of all offsets end to end, in spans of a few offsets that are gathered at once.

    Attributes:
        i: (P,) rows that are added to.
        j: (P,) rows that are read.
        spans: per span its start, its stop, and (offset, start, stop) of each offset in it.
        centre: the offset with i = j, which needs no gathering; -1 where there is none.
    """

    i: Tensor
    j: Tensor
    spans: list[tuple[int, int, list[tuple[int, int, int]]]]
    centre: int


def _joined(pairs: Pairs) -> _Joined:
    """Spans of one offset each on a GPU, where rows that are added to twice would be summed in no fixed order.

    On a CPU an offset of many pairs is several spans.
    """
    there = [(k, pair) for k, pair in enumerate(pairs) if pair is not None and len(pair[0])]
    centre = next((k for k, pair in enumerate(pairs) if pair is None), -1)
    spans: list[tuple[int, int, list[tuple[int, int, int]]]] = []
    at = 0
    for k, (i, _) in there:
        end, room = at + len(i), _SPAN if i.device.type == "cpu" else len(i)
        while at < end:
            stop = min(end, at + room)
            if spans and i.device.type == "cpu" and stop - spans[-1][0] <= room:
                start, _, parts = spans.pop()
                spans.append((start, stop, [*parts, (k, at, stop)]))
            else:
                spans.append((at, stop, [(k, at, stop)]))
            at = stop
    if not there:
        none = torch.zeros(0, dtype=torch.long)
        return _Joined(none, none, [], centre)
    return _Joined(torch.cat([p[0] for _, p in there]), torch.cat([p[1] for _, p in there]), spans, centre)


class _PairedProduct(torch.autograd.Function):
    """out[i] += x[j] @ weight[k] for all pairs (i, j) of offset k; nothing gathered is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, pairs: _Joined, rows: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.pairs = pairs
        out = x @ weight[pairs.centre] if pairs.centre >= 0 else x.new_zeros(rows, weight.shape[2])
        for start, stop, parts in pairs.spans:
            read = x.index_select(0, pairs.j[start:stop])
            made = torch.cat([read[a - start : b - start] @ weight[k] for k, a, b in parts])
            out.index_add_(0, pairs.i[start:stop], made)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        pairs, grad = ctx.pairs, grads[0].contiguous()
        to_weight: list[Tensor] = [weight.new_zeros(weight.shape[1:])] * len(weight)
        to_x = torch.zeros_like(x)
        add = Tensor.index_add if torch.is_grad_enabled() else Tensor.index_add_  # a gradient to differentiate again?
        if pairs.centre >= 0:
            to_x = grad @ weight[pairs.centre].T
            to_weight[pairs.centre] = x.T @ grad
        for start, stop, parts in pairs.spans:
            given, read = grad.index_select(0, pairs.i[start:stop]), x.index_select(0, pairs.j[start:stop])
            made = torch.cat([given[a - start : b - start] @ weight[k].T for k, a, b in parts])
            to_x = add(to_x, 0, pairs.j[start:stop], made)
            for k, a, b in parts:
                to_weight[k] = to_weight[k] + read[a - start : b - start].T @ given[a - start : b - start]
        return to_x, torch.stack(to_weight), None, None


class _SparseConv(nn.Module):
    """Weights of a convolution: (kernel^3, C, C')."""

    def __init__(self, channels: int, out: int, volume: int, bias: bool) -> None:
        super().__init__()
        if channels < 1 or out < 1:
            raise UserError(f"a convolution from {channels} to {out} channels: both must be 1 or more")
        self.weight = nn.Parameter(torch.empty(volume, channels, out))
        self.bias = nn.Parameter(torch.empty(out)) if bias else None
        bound = 1 / math.sqrt(volume * channels)
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def multiplied(self, x: Tensor, pairs: _Joined, rows: int) -> Tensor:
        """out[i] += x[j] @ weight[k] over all pairs, and the bias."""
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        out = _PairedProduct.apply(x, self.weight.to(x.dtype), pairs, rows)
        return out if self.bias is None else out + self.bias.to(out.dtype)


class SubmanifoldConv(_SparseConv):
    """A convolution at the occupied voxels alone (Graham et al. 2018): what is empty stays empty.

    out_i = b + sum over offsets o of x_(i+o) W_o, over those i + o that are occupied.

    Args:
        channels: C.
        out: C'.
        kernel: edge, odd.
        bias: whether b is there (default False).
    """

    def __init__(self, channels: int, out: int, kernel: int = 3, bias: bool = False) -> None:
        super().__init__(channels, out, kernel**3, bias)
        self.kernel = kernel

    def forward(self, x: Tensor, voxels: Voxels) -> Tensor:
        """(V, C) -> (V, C')."""
        _check_rows(x, voxels)
        pairs = voxels.kept(("joined", self.kernel), lambda: _joined(voxels.neighbours(self.kernel)))
        return self.multiplied(x, pairs, len(voxels))


class StridedConv(_SparseConv):
    """A convolution of kernel 2 and stride 2, onto the voxels of twice the edge that contain occupied ones.

    Args:
        channels: C.
        out: C'.
        bias: default True.
    """

    def __init__(self, channels: int, out: int, bias: bool = True) -> None:
        super().__init__(channels, out, 8, bias)

    def forward(self, x: Tensor, voxels: Voxels) -> Tensor:
        """(V, C) at ``voxels`` -> (V', C') at ``voxels.coarsen()``."""
        _check_rows(x, voxels)
        coarse = voxels.coarsen()
        pairs = voxels.kept("down", lambda: _joined([(i, j) for j, i in _slots(voxels)]))
        return self.multiplied(x, pairs, len(coarse))


class InverseConv(_SparseConv):
    """The way back of :class:`StridedConv`: each voxel gets its parent's features times its own slot's weight.

    Args:
        channels: C.
        out: C'.
        bias: default True.
    """

    def __init__(self, channels: int, out: int, bias: bool = True) -> None:
        super().__init__(channels, out, 8, bias)

    def forward(self, x: Tensor, voxels: Voxels) -> Tensor:
        """(V', C) at ``voxels.coarsen()`` -> (V, C') at ``voxels``."""
        _check_rows(x, voxels.coarsen())
        pairs = voxels.kept("up", lambda: _joined(list(_slots(voxels))))
        return self.multiplied(x, pairs, len(voxels))


def _slots(voxels: Voxels) -> list[tuple[Tensor, Tensor]]:
    """For each of the 8 slots: the voxels in it, and their parents."""

    def make() -> list[tuple[Tensor, Tensor]]:
        _, parent, slot = voxels.family()
        found = [(slot == k).nonzero()[:, 0] for k in range(8)]
        return [(rows, parent[rows]) for rows in found]

    return voxels.kept("slots", make)


def _check_rows(x: Tensor, voxels: Voxels) -> None:
    if x.dim() != 2 or len(x) != len(voxels):
        raise UserError(f"features {tuple(x.shape)} where there are {len(voxels)} voxels")
