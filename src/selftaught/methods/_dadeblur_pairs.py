"""Adapting a video deblurrer to blurred videos: pairs made of what is sharp in them, and fine-tuning on these."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from selftaught import objectives
from selftaught.networks.classical_flow import optical_flow
from selftaught.networks.reblurring import BlurDiffusion, path_blur
from selftaught.views.sharpness import SharpRegion, sharp_regions

STRETCH, _BORDER, _BATCH = 120, 2, 4
_WHOLE_BOX, _FRAME = 256, 480


class Pair(NamedTuple):
    """What is fine-tuned on: a window (C, 5, h, w) of blurred frames, what its middle should be, and its blur.

    In half precision, which is finer than 8 bits. ``condition`` (3, h, w), its magnitude in pixels, is kept where the
    result is to be blurred again, else None.
    """

    window: Tensor
    target: Tensor
    condition: Tensor | None = None


def smallest_box(wanted: int, height: int, width: int) -> int:
    """The least side of a sharp place: 256 pixels of frames of 480 lines; smaller frames scale it down."""
    return max(1, min(wanted, round(min(height, width) * _WHOLE_BOX / _FRAME)))


def magnitudes(network: nn.Module, frames: Tensor, device: Any) -> Tensor:
    """Shares of the longest blur, clipped to [0, 1], (T, H, W) on the CPU, of frames (T, C, H, W) in [0, 1]."""
    found = [network(part.to(device)).clamp(0, 1)[:, 0].cpu() for part in frames.split(_BATCH)]
    return torch.cat(found)


class Blurrer:
    """Blurs frames of a video as its neighbours are blurred.

    Args:
        config: of DADeblur.
        diffusion: the blurring model; None blurs along a straight path.
        generator: of all draws.
    """

    def __init__(self, config: Any, diffusion: BlurDiffusion | None, generator: torch.Generator) -> None:
        self.config, self.diffusion, self.generator = config, diffusion, generator

    def strengths(self, shares: Tensor) -> Tensor:
        """Magnitude of the new blur in pixels, (T, H, W), out of the shares of the longest one."""
        c = self.config
        pixels = c.longest * shares
        if c.magnitude != "random":
            return objectives.domain_magnitude(pixels, offset=c.magnitude_offset, mode=c.magnitude)
        drawn = torch.rand(len(pixels), 1, 1, generator=self.generator)
        return (c.magnitude_offset + drawn * pixels.max()).expand_as(pixels)

    def direction(self, frames: Tensor, t: int) -> Tensor:
        """Unit direction (1, 2, H, W) of the blur of frame t of (T, C, H, W), which has neighbours on both sides."""
        c = self.config
        if c.orientation == "random":
            angle = 2 * math.pi * float(torch.rand((), generator=self.generator))
            found = torch.tensor([math.cos(angle), math.sin(angle)]).view(1, 2, 1, 1)
            return found.expand(1, 2, *frames.shape[2:])
        here = frames[t : t + 1]
        ahead, back = (optical_flow(here, frames[k : k + 1], method=c.flow) for k in (t + 1, t - 1))
        found = objectives.blur_orientation(ahead, back)
        return torch.stack((-found[:, 1], found[:, 0]), 1) if c.orientation == "across" else found

    def blurred(self, sharp: Tensor, direction: Tensor, strength: Tensor) -> Tensor:
        """Blurred pictures (N, C, H, W) in [0, 1]; direction (N, 2, H, W), strength (N, H, W) in pixels."""
        c = self.config
        if self.diffusion is None:
            limited = strength.clamp(max=c.longest)
            return path_blur(sharp, torch.cat((direction, limited[:, None]), 1))
        condition = objectives.blur_condition(direction, strength, longest=c.longest)
        multiple: Any = getattr(self.diffusion.network, "multiple", 1)
        height, width = sharp.shape[2:]
        edges = (0, -width % multiple, 0, -height % multiple)
        x, told = (nn.functional.pad(part, edges, mode="replicate") for part in (sharp - 0.5, condition))
        if c.sampler == "ddpm":
            made = self.diffusion.ddpm(x, told, generator=self.generator)
        else:
            made = self.diffusion.ddim(x, told, taken=c.sampling_steps, generator=self.generator)
        return made[..., :height, :width] + 0.5


def stretches(source: Any, i: int) -> Iterator[np.ndarray]:
    """The frames (T, H, W, C) of a clip, some 120 at a time, so that a long video needs no more memory."""
    count = source.frames(i)
    parts = max(1, round(count / STRETCH))
    ends = np.linspace(0, count, parts + 1).astype(int)
    for start, stop in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        yield source.read(i, frames=np.arange(start, stop))


# ---- pairs -------------------------------------------------------------------------------------------------------
def sharp_pairs(frames: Tensor, shares: Tensor, blurrer: Blurrer, device: Any) -> tuple[list[Pair], list[SharpRegion]]:
    """Pairs of the sharp places of a video, each blurred as its neighbours are (the paper).

    Args:
        frames: (T, C, H, W) in [0, 1], on the CPU.
        shares: (T, H, W), see `magnitudes`.
        blurrer: blurs the middle frames; the neighbours stay as they are.
        device: where the blurring model is.
    """
    c = blurrer.config
    least = smallest_box(c.min_box, *frames.shape[2:])
    regions, _ = sharp_regions(shares.numpy(), ratio=c.ratio, smallest=least, border=_BORDER, seed=c.adapt_seed)
    strength, pairs = blurrer.strengths(shares), []
    for t, (top, left, bottom, right) in regions:
        direction = blurrer.direction(frames, t)
        if blurrer.diffusion is None:  # the path may leave the box
            made = blurrer.blurred(frames[t : t + 1], direction, strength[t : t + 1])[0, :, top:bottom, left:right]
        else:
            parts = frames[t : t + 1], direction, strength[t : t + 1]
            cut = [part[..., top:bottom, left:right].to(device) for part in parts]
            made = blurrer.blurred(*cut)[0].cpu()
        window = frames[t - _BORDER : t + _BORDER + 1, :, top:bottom, left:right].transpose(0, 1).clone()
        target = window[:, _BORDER].clone()
        window[:, _BORDER] = made
        pairs.append(Pair(window.half(), target.half()))
    return pairs, regions


def reblurring_pairs(frames: Tensor, shares: Tensor, blurrer: Blurrer, count: int) -> list[Pair]:
    """Windows of evenly spaced frames with their own blur: what is restored must give them when it is blurred again."""
    inner = np.arange(_BORDER, len(frames) - _BORDER)
    chosen = (
        inner[np.unique(np.linspace(0, len(inner) - 1, min(count, len(inner))).astype(int))] if len(inner) else inner
    )
    pairs = []
    for t in chosen.tolist():
        window = frames[t - _BORDER : t + _BORDER + 1].transpose(0, 1)
        strength = blurrer.config.longest * shares[t : t + 1]
        condition = torch.cat((blurrer.direction(frames, t)[0], strength))
        pairs.append(Pair(window.half(), window[:, _BORDER].half(), condition.half()))
    return pairs


# ---- fine-tuning -------------------------------------------------------------------------------------------------
def patch(pair: Pair, side: int, *, turn: bool, generator: torch.Generator) -> Pair:
    """A random crop, flips and, with ``turn``, a quarter turn of all parts of a pair, in float32.

    The direction of a blur is flipped and turned along with the picture.
    """
    height, width = pair.target.shape[1:]
    tall, wide = min(side, height), min(side, width)
    drawn = torch.rand(5, generator=generator).tolist()
    top, left = int(drawn[0] * (height - tall + 1)), int(drawn[1] * (width - wide + 1))
    parts = [None if x is None else x[..., top : top + tall, left : left + wide].float() for x in pair]
    for axis, number in ((-1, 2), (-2, 3)):
        if drawn[number] < 0.5:
            parts = [None if x is None else x.flip(axis) for x in parts]
            if parts[2] is not None:
                parts[2][0 if axis == -1 else 1] *= -1
    if turn and drawn[4] < 0.5 and tall == wide:
        parts = [None if x is None else x.transpose(-1, -2) for x in parts]
        parts[2] = None if parts[2] is None else parts[2][[1, 0, 2]]
    window, target, condition = parts
    assert window is not None
    assert target is not None
    return Pair(window.contiguous(), target.contiguous(), condition)


def batches(pairs: list[Pair], config: Any, generator: torch.Generator) -> Iterator[list[Pair]]:
    """One pass over the pairs in an order that is drawn, patches of one size in each batch."""
    side = min([config.adapt_patch, *(min(pair.target.shape[1:]) for pair in pairs)])
    side -= side % 4 if side >= 4 else 0
    order = torch.randperm(len(pairs), generator=generator).tolist()
    for start in range(0, len(order), config.adapt_batch):
        chosen = order[start : start + config.adapt_batch]
        yield [patch(pairs[k], side, turn=config.turn, generator=generator) for k in chosen]


def fine_tune(
    restore: Callable[[Tensor], Tensor], network: nn.Module, pairs: list[Pair], config: Any, generator: torch.Generator
) -> list[float]:
    """Adam with a cosine from ``adapt_lr`` to ``adapt_final_lr`` over ``adapt_epochs``; the last weights stay.

    Args:
        restore: windows (N, C, 5, h, w) in [0, 1] to their middle frames, shifted to [-0.5, 0.5] and not clipped.
        network: what is trained.
        pairs: none trains nothing.
        config: of DADeblur.
        generator: of all draws.

    Returns:
        the loss of every step.
    """
    parameters = [p for p in network.parameters() if p.requires_grad]
    if not pairs or not config.adapt_epochs:
        return []
    device = parameters[0].device
    optimiser = torch.optim.Adam(parameters, lr=config.adapt_lr)
    total = config.adapt_epochs * math.ceil(len(pairs) / config.adapt_batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, total, eta_min=config.adapt_final_lr)
    losses = []
    for _ in range(config.adapt_epochs):
        for chosen in batches(pairs, config, generator):
            window, target = (torch.stack([pair[k] for pair in chosen]).to(device) for k in (0, 1))  # type: ignore[misc]
            made = restore(window)
            if chosen[0].condition is not None:
                told = torch.stack([pair.condition for pair in chosen]).to(device)  # type: ignore[misc]
                made = path_blur(made, told)
            loss = objectives.dadeblur(made, target - 0.5)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, config.adapt_clip)
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
    return losses
