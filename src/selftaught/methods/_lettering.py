"""What the loader's processes do for text erasing: text drawn on a sample in a style of the policies, and its mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from selftaught.views import erasure_mask, letter
from selftaught.views.degradations.lettering import words_of

__all__: list[str] = []

TARGET, INPUT, REAL = "target", "input", "real"
"""Names of the views: g, x, m_r."""


class Lettering:
    """Draws text on ``target`` into ``input``, whose mask becomes the fact ``input.mask`` (H, W) uint8.

    Args:
        count: words on a picture.
        fonts: folder; "" for matplotlib's.
        words: text file; "" for ours.
        kind: of the mask, "rect" or "pixel".
        policies: (K, 18) styles, of which each picture has one by chance; None: each word has its own, drawn evenly.
        given: the inputs have their text already; only the mask is made.
    """

    def __init__(
        self,
        *,
        count: int,
        fonts: str,
        words: str,
        kind: str,
        policies: np.ndarray | None = None,
        given: bool = False,
    ) -> None:
        self.count, self.fonts, self.words, self.kind = count, fonts, words, kind
        self.policies, self.given = policies, given

    def __call__(self, views: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """The views with their input."""
        if self.given:
            return views | {f"{INPUT}.mask": erasure_mask(views[INPUT], views[TARGET], kind=self.kind)}
        style = None if self.policies is None else self.policies[int(rng.integers(len(self.policies)))]
        x, mask = self.draw(views[TARGET], views[REAL], style, rng)
        return views | {INPUT: x, f"{INPUT}.mask": mask}

    def draw(
        self, image: np.ndarray, real: np.ndarray, style: np.ndarray | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """One picture (H, W, C) with text, and its mask (H, W)."""
        options: dict[str, Any] = {"count": self.count, "fonts": self.fonts, "words": words_of(self.words)}
        return letter(image, rng, style, taken=real, kind=self.kind, **options)

    def batch(self, g: Tensor, real: Tensor, styles: np.ndarray) -> tuple[Tensor, Tensor]:
        """A batch (N, C, H, W) with text in one style each, and the masks (N, 1, H, W), on its device.

        Chance is torch's.
        """
        images = g.detach().permute(0, 2, 3, 1).cpu().numpy()
        taken = real.cpu().numpy()
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        made = [self.draw(np.ascontiguousarray(a), t, s, rng) for a, t, s in zip(images, taken, styles, strict=True)]
        x = torch.from_numpy(np.stack([one for one, _ in made])).permute(0, 3, 1, 2)
        mask = torch.from_numpy(np.stack([one for _, one in made]))[:, None]
        return x.to(g), mask.to(g)
