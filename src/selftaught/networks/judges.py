"""Judges of edited pictures: two small ones of unlike build, trained here; a judge gives logits of yes and no.

A judge is ``judge(ref, edit, questions) -> (N, 2)``: pictures (N, C, H, W) in [0, 1], one question each. Gradients
reach the edited picture. The adapter of a pretrained vision-language model is in `selftaught.networks.vision_language`.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor, cat, nn
from torch.nn.functional import avg_pool2d, interpolate, pad

from selftaught.errors import UserError
from selftaught.networks.words import WordPool

__all__ = ["ConvJudge", "PatchJudge", "SmallJudge", "damaged", "mixed_colours", "shifted"]


class SmallJudge(nn.Module):
    """Base of the small judges: one features the pair of pictures, a text tower the question, an MLP answers.

    Args:
        channels: of a picture.
        width: of its layers.
        vocabulary: of the questions' tokens.
        context: longest question in tokens.
    """

    def __init__(self, channels: int = 3, width: int = 32, *, vocabulary: int = 1024, context: int = 32) -> None:
        super().__init__()
        self.channels, self.width = channels, width
        self.text = WordPool(vocabulary, context=context, width=64)
        self.told = nn.Linear(64, 2 * width)
        self.answer = nn.Sequential(nn.Linear(4 * width, 2 * width), nn.SiLU(), nn.Linear(2 * width, 2))

    def pair(self, ref: Tensor, edit: Tensor) -> Tensor:
        """(N, 2 width) of two pictures in [-1, 1]."""
        raise TypeError(f"{type(self).__name__} sees no pictures")

    def forward(self, ref: Tensor, edit: Tensor, questions: Tensor) -> Tensor:
        """Logits of yes and no.

        Args:
            ref: (N, C, H, W) in [0, 1].
            edit: the same shape; gradients reach it.
            questions: tokens (N, L).

        Raises:
            UserError: shapes that differ.
        """
        if ref.shape != edit.shape or ref.dim() != 4 or ref.shape[1] != self.channels or len(questions) != len(ref):
            raise UserError(
                f"a judge of {self.channels} channels takes two pictures of one shape and a question for each, got "
                f"{tuple(ref.shape)}, {tuple(edit.shape)} and {len(questions)} questions"
            )
        seen, told = self.pair(2 * ref - 1, 2 * edit - 1), self.told(self.text(questions))
        return self.answer(cat([seen * (1 + told), seen + told], dim=1))


class ConvJudge(SmallJudge):
    """Three convolutions over both pictures and their difference, the mean and the largest over places."""

    def __init__(self, channels: int = 3, width: int = 32, **options: Any) -> None:
        super().__init__(channels, width, **options)
        widths = (3 * channels, width, 2 * width, 2 * width)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.GroupNorm(math.gcd(8, b), b), nn.SiLU())
            for a, b in itertools.pairwise(widths)
        )
        self.joined = nn.Sequential(nn.Linear(4 * width, 2 * width), nn.LayerNorm(2 * width))

    def pair(self, ref: Tensor, edit: Tensor) -> Tensor:
        """(N, 2 width)."""
        h = cat([ref, edit, edit - ref], dim=1)
        for layer in self.layers:
            h = layer(h)
        return self.joined(cat([h.mean((2, 3)), h.amax((2, 3))], dim=1))


class PatchJudge(SmallJudge):
    """Patches of both pictures and of their difference, two transformer blocks, the mean."""

    def __init__(self, channels: int = 3, width: int = 32, *, patch: int = 4, **options: Any) -> None:
        super().__init__(channels, width, **options)
        self.embed = nn.Conv2d(3 * channels, 2 * width, patch, stride=patch)
        self.place = nn.Linear(4, 2 * width)
        kwargs: dict[str, Any] = {"batch_first": True, "norm_first": True, "dropout": 0.0, "activation": "gelu"}
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(2 * width, 2, 4 * width, **kwargs) for _ in range(2))
        self.norm = nn.LayerNorm(2 * width)

    def pair(self, ref: Tensor, edit: Tensor) -> Tensor:
        """(N, 2 width)."""
        h = self.embed(cat([ref, edit, edit - ref], dim=1))
        rows, columns = (torch.linspace(0, 1, side, device=h.device) for side in h.shape[2:])
        grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).flatten(0, 1)
        waves = cat([(math.pi * grid).sin(), (math.pi * grid).cos()], dim=1)
        tokens = h.flatten(2).transpose(1, 2) + self.place(waves)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens).mean(1)


# ---- what the small judges learn from, without any edited picture ----------------------------------------------------
def mixed_colours(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Pictures whose channels are exchanged and mixed, each its own way: grey stays grey, what is where stays.

    Args:
        x: (N, C, H, W) in [0, 1].
        generator: draws the mixtures.
    """
    n, channels = x.shape[:2]
    order = torch.rand(n, channels, channels, generator=generator, device=x.device)
    mixture = torch.softmax(12 * order, dim=2)  # rows sum to 1
    return torch.einsum("nij,njhw->nihw", mixture, x)


def shifted(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Pictures moved by an eighth to a quarter of their side to one of four sides, their edges repeated."""
    n, _, height, width = x.shape
    low, high = max(1, width // 8), max(2, width // 4 + 1)
    found = torch.empty_like(x)
    by = torch.randint(low, high, (n,), generator=generator, device=x.device).tolist()
    side = torch.randint(0, 4, (n,), generator=generator, device=x.device).tolist()
    for i, (d, where) in enumerate(zip(by, side, strict=True)):
        dy, dx = ((d, 0), (-d, 0), (0, d), (0, -d))[where]
        rows = (torch.arange(height, device=x.device) + dy).clamp(0, height - 1)
        columns = (torch.arange(width, device=x.device) + dx).clamp(0, width - 1)
        found[i] = x[i][:, rows][:, :, columns]
    return found


def damaged(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Pictures with what generators leave behind: each with grain, blur, tiles of one colour, or a cast over all of it.

    Grain has a standard deviation of 0.1 to 0.4; a cast shifts one channel by 0.1 to 0.3 and the others by less; blur
    is the mean over a quarter to a half of a side, and tiles are as wide, both 2 pixels or more.

    Args:
        x: (N, C, H, W) in [0, 1].
        generator: draws which, how much and the grain.

    Returns:
        The same shape; grain and cast may leave [0, 1].
    """
    n, channels = x.shape[:2]
    least = max(2, min(x.shape[2:]) // 4)

    def drawn(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=x.device)

    def width() -> int:
        return int(torch.randint(least, 2 * least + 1, (), generator=generator, device=x.device))

    noise = torch.randn(x.shape, generator=generator, device=x.device)
    grainy = x + (0.1 + 0.3 * drawn(n, 1, 1, 1)) * noise
    reach = width() // 2
    blurry = avg_pool2d(pad(x, (reach,) * 4, mode="replicate"), 2 * reach + 1, 1)
    tiled = interpolate(avg_pool2d(x, width(), ceil_mode=True), x.shape[2:])
    shift = 2 * drawn(n, channels, 1, 1) - 1
    shift = shift / shift.abs().amax(1, keepdim=True)  # one channel goes the whole way
    cast = x + (0.1 + 0.2 * drawn(n, 1, 1, 1)) * shift
    which = torch.randint(0, 4, (n,), generator=generator, device=x.device)
    return torch.stack([grainy, blurry, tiled, cast])[which, torch.arange(n, device=x.device)]
