"""lightly's SimCLR example: its data set, transform, loss and loop; prints images per second.

    python benchmarks/speed/lightly_step.py STEPS [--tuned]

As documented it trains in float32 with two loader workers; ``--tuned`` is what an expert makes of it: bf16 autocast,
channels_last, and one worker, which leaves the step's threads their cores.
"""

from __future__ import annotations

import sys
import time
from itertools import chain, repeat
from typing import Any

import torch
from peers import lightly_views
from step import BATCH, SIDE, WARM, Tiles, network, pictures
from torch.utils.data import DataLoader


def main(steps: int, tuned: bool) -> None:
    views = lightly_views(SIDE, gaussian_blur=0.0)  # puts the package on the path
    from lightly.data import LightlyDataset
    from lightly.loss import NTXentLoss

    dataset = LightlyDataset.from_torch_dataset(Tiles(pictures(4096)), transform=views)
    options: dict[str, Any] = {"batch_size": BATCH, "shuffle": True, "drop_last": True, "persistent_workers": True}
    loader = DataLoader(dataset, num_workers=1 if tuned else 2, **options)
    model, criterion = network(), NTXentLoss(temperature=0.5)
    if tuned:
        model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06)
    batches = chain.from_iterable(repeat(loader))
    for turn, ((x0, x1), *_) in zip(range(WARM + steps), batches, strict=False):
        if turn == WARM:
            began = time.perf_counter()
        if tuned:
            x0, x1 = (x.contiguous(memory_format=torch.channels_last) for x in (x0, x1))
        with torch.autocast("cpu", torch.bfloat16, enabled=tuned):
            loss = criterion(model(x0), model(x1))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    print(BATCH * steps / (time.perf_counter() - began))


if __name__ == "__main__":
    main(int(sys.argv[1]), "--tuned" in sys.argv)
