"""A few numbers for every training sample, remembered from visit to visit: temperatures, moving averages, scores."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from selftaught.engine.distributed import rank, world_size
from selftaught.errors import UserError


class SampleState(nn.Module):
    """A table with one row per training sample, in buffers, so that checkpoints carry it.

    In one process the table is whole. Over W processes, between :meth:`spread` and :meth:`join`, rank r keeps the rows
    of the indices r, r + W, r + 2W ... only; reading and writing then take the indices of all ranks (gathered), and all
    ranks must call together, as they must for ``state_dict``. A checkpoint always holds the whole table, so a run may
    go on with another number of processes. DistributedDataParallel must not copy rank 0's rows over the others: name
    :meth:`buffer_names` in the wrapped module's ``_ddp_params_and_buffers_to_ignore``.

    Args:
        samples: rows N; batch["index"] counts from 0 to N - 1.
        **columns: name and first value of each column.

    Raises:
        UserError: no sample.
    """

    def __init__(self, samples: int, **columns: float) -> None:
        super().__init__()
        if samples < 1:
            raise UserError("a state per sample needs the number of samples: METHOD(..., samples=len(source))")
        self.samples, self.columns = samples, tuple(columns)
        self.place = (0, 1)
        for name, value in columns.items():
            self.register_buffer(name, torch.full((samples,), float(value)))

    def __len__(self) -> int:
        return self.samples

    def buffer_names(self, prefix: str) -> list[str]:
        """Names of the buffers in a module that holds this one as ``prefix``."""
        return [f"{prefix}.{name}" for name in self.columns]

    # ---- rows ------------------------------------------------------------------------------------------------
    @torch.no_grad()
    def read(self, index: Tensor) -> dict[str, Tensor]:
        """The rows of ``index`` (B,) int64, one tensor (B,) per column."""
        self._check(index)
        number, world = self.place
        if world == 1:
            return {name: self.get_buffer(name)[index] for name in self.columns}
        mine = index % world == number
        rows = torch.stack([torch.where(mine, self.get_buffer(name)[index // world], 0) for name in self.columns])
        dist.all_reduce(rows)
        return dict(zip(self.columns, rows.unbind(0), strict=True))

    @torch.no_grad()
    def write(self, index: Tensor, values: dict[str, Tensor]) -> None:
        """Put ``values``, (B,) per column, into the rows of ``index``; a sample twice in a batch gets the mean.

        Columns that ``values`` lacks stay.
        """
        self._check(index)
        number, world = self.place
        mine = index % world == number
        own, where = torch.unique(index[mine] // world, return_inverse=True)
        count = torch.bincount(where, minlength=len(own))
        for name, value in values.items():
            column = self.get_buffer(name)
            total = column.new_zeros(len(own)).index_add_(0, where, value[mine].to(column))
            column[own] = total / count.to(column)

    def _check(self, index: Tensor) -> None:
        if index.device.type == "cpu" and len(index) and not 0 <= int(index.min()) <= int(index.max()) < self.samples:
            raise UserError(
                f"sample {int(index.max())} of a table of {self.samples}: the method was built for other data; "
                "build it with samples=len(source)"
            )

    # ---- over several processes ------------------------------------------------------------------------------
    def spread(self) -> None:
        """Keep this rank's rows only; nothing happens in one process, or the second time."""
        if self.place == (0, 1) and world_size() > 1:
            self.place = (rank(), world_size())
            for name in self.columns:
                setattr(self, name, self._share(self.get_buffer(name)))

    def join(self) -> None:
        """Give every rank the whole table again."""
        whole = self.whole()
        self.place = (0, 1)
        for name, value in whole.items():
            setattr(self, name, value)

    @torch.no_grad()
    def whole(self) -> dict[str, Tensor]:
        """The table of all samples, (N,) per column, on every rank; all ranks must call."""
        world = self.place[1]
        if world == 1:
            return {name: self.get_buffer(name) for name in self.columns}
        found = {}
        for name in self.columns:
            own = self.get_buffer(name)
            gathered = own.new_empty(world * len(own))
            dist.all_gather_into_tensor(gathered, own)
            found[name] = gathered.view(world, -1).T.reshape(-1)[: self.samples].contiguous()
        return found

    def _share(self, whole: Tensor) -> Tensor:
        """Every W-th row of a whole column from this rank's number on, filled up to the same length on all ranks."""
        number, world = self.place
        own = whole[number::world]
        return torch.cat([own, own.new_zeros(-(-self.samples // world) - len(own))])

    # ---- checkpoints hold the whole table --------------------------------------------------------------------
    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        for name, value in self.whole().items():
            destination[prefix + name] = value

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: Any, strict: bool, missing_keys: list[str],
        unexpected_keys: list[str], error_msgs: list[str],
    ) -> None:  # fmt: skip
        for name in self.columns:
            value = state_dict.get(prefix + name)
            if value is None:
                missing_keys.append(prefix + name)
            elif value.shape != (self.samples,):
                error_msgs.append(f"{prefix}{name} is of {len(value)} samples, the data have {self.samples}")
            else:
                with torch.no_grad():
                    self.get_buffer(name).copy_(self._share(value) if self.place != (0, 1) else value)
