"""What an editor that follows instructions delivers: the generator with its sampler, and the judges beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from selftaught.data.editing import INSTRUCTION, TARGET
from selftaught.errors import UserError
from selftaught.objectives import sample_flow

__all__ = ["Editor", "copy_weights", "repeated", "times_of"]


class Editor(nn.Module):
    """Pictures and instructions in, edited pictures out.

    Args:
        generator: velocity(x_t, t, text, ref) with ``encode``, ``decode`` and ``latent``, the shape that it works on.
        empty: what the generator takes for an empty text (1, L), where it takes tokens; None where it takes strings.
        steps: times of the sampler.
        fresh: whether every step draws new noise.
        **beside: networks that travel with it (teacher, judges) and have no part in editing.
    """

    def __init__(
        self,
        generator: nn.Module,
        empty: Tensor | None,
        steps: Sequence[float],
        *,
        fresh: bool = False,
        **beside: nn.Module,
    ) -> None:
        super().__init__()
        self.generator, self.steps, self.fresh = generator, tuple(steps), fresh
        for name, part in beside.items():
            self.add_module(name, part)
        shape: Any = generator.latent
        self.register_buffer("noise", torch.randn(1, *shape, generator=torch.Generator().manual_seed(0)))
        self.register_buffer("empty", torch.zeros(1, 1, dtype=torch.int64) if empty is None else empty.clone())

    def forward(self, x: Tensor, text: Any = None) -> Tensor:
        """Edit pictures, always with the same noise.

        Args:
            x: (N, C, H, W) in [0, 1], of the generator's size.
            text: instructions as the generator takes them: tokens (N, L), or N strings; None: empty ones.

        Returns:
            (N, C, H, W) in [0, 1].
        """
        generator: Any = self.generator
        empty: Any = self.empty
        if text is None:
            text = empty.expand(len(x), -1) if empty.shape[1] > 1 else [""] * len(x)
        noise: Any = self.noise
        ref, start = generator.encode(2 * x - 1), noise.expand(len(x), *noise.shape[1:])
        draws = torch.Generator(device=x.device).manual_seed(0) if self.fresh else None

        def velocity(x_t: Tensor, t: Tensor) -> Tensor:
            return generator(x_t, t, text, ref)

        made = sample_flow(velocity, start, self.steps, fresh=self.fresh, generator=draws)
        return ((generator.decode(made) + 1) / 2).clamp(0, 1)


def times_of(text: str, option: str) -> tuple[float, ...]:
    """Times such as "0.25,0.5,0.75".

    Raises:
        UserError: it names the option; a number that is none, or outside (0, 1].
    """
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or any(not 0 < t <= 1 for t in found):
        raise UserError(f"{option}={text!r}: times above 0 and at most 1, such as 0.25,0.5,0.75")
    return found


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Weights of one network into another of its build, under LoRA's names where that has some."""
    own = target.state_dict()
    for name, value in source.state_dict().items():
        head, _, last = name.rpartition(".")
        there = name if name in own else f"{head}.parametrizations.{last}.original"
        own[there].copy_(value)


def repeated(batch: dict[str, Any], times: int) -> dict[str, Any]:
    """Every edit of a batch several times, one after the other."""
    found: dict[str, Any] = {"image": batch["image"].repeat_interleave(times, 0)}
    for name in ("text", INSTRUCTION, TARGET, "kind"):
        found[name] = [text for text in batch[name] for _ in range(times)]
    return found
