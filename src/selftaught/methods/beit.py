"""BEiT: a ViT with mask tokens says which visual word is hidden (Bao et al., ICLR 2022, arXiv 2106.08254).

    L = - mean over hidden i  log softmax(W h_i + b)_{z_i},        z_i the word of patch i in a copy of half the size

The words come from a frozen tokeniser. The paper's was trained on other images; here a codebook is learnt by k-means in
a stage of its own from the very images (pixels or gradient histograms), and a trained one can be plugged in.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from selftaught import networks, objectives
from selftaught.catalog.rules import Count, Range
from selftaught.engine.method import LearningRateScaling, Stage
from selftaught.errors import UserError
from selftaught.methods._encoder import accuracy
from selftaught.methods._mask_tokens import MaskTokenConfig, MaskTokens
from selftaught.networks.tokens import patchify, unpatchify
from selftaught.views import ColorJitter, Pipeline

__all__ = ["BEiT"]


@dataclass
class Config(MaskTokenConfig):
    """BEiT's options; the defaults are the paper's ViT-B/16 on ImageNet, with k-means for the tokeniser."""

    crop: float = 0.08
    mask_ratio: Annotated[float, Range(0, below=1)] = 0.383
    words: Count = 2048
    """Visual words K of the k-means codebook (the paper's trained tokeniser has 8192)."""
    word_features: Literal["pixels", "hog"] = "pixels"
    """What k-means compares: the pixels of a patch, or its gradient histograms."""
    tokeniser: str = "kmeans"
    """kmeans, or module:name of your own: a module (N, C, h, w) in [0, 1] -> words (N, L) with an attribute words."""
    tokeniser_steps: Count = 2000
    """Steps of the first stage, in which k-means learns the words."""
    lr: float = 1.5e-3
    lr_scaling: LearningRateScaling = "none"
    warmup_epochs: float = 10.0


PRESETS = {
    "imagenet": {"epochs": 800, "batch_size": 2048, "clip": 3.0},
    "imagenet-300": {"epochs": 300, "batch_size": 2048, "clip": 3.0},
    "laptop": {
        "encoder": "vit-nano", "image_size": 0, "augment": "grey", "crop": 0.4, "words": 256, "tokeniser_steps": 30,
        "lr": 2e-3, "warmup_epochs": 1.0, "steps": 1000, "batch_size": 64,
    },
}  # fmt: skip


class BEiT(MaskTokens):
    """BEiT on images of any number of channels."""

    slug = "beit"
    config_class = Config
    config: Config
    stages = ("words", "train")

    def build(self) -> None:
        """The tokeniser, the ViT, and a classifier of words."""
        c = self.config
        self.own: nn.Module | None = None if c.tokeniser == "kmeans" else networks.Frozen(
            _imported(c.tokeniser), name=f"tokeniser {c.tokeniser}"
        )  # fmt: skip
        super().build()
        if self.own is not None:
            self.stages = ("train",)  # type: ignore[assignment]
            self.stage = "train"
            return
        side = self.word_side
        width = self.channels * (side**2 if c.word_features == "pixels" else 9 * _cells(side) ** 2)
        self.codebook = networks.Codebook(width, c.words)

    def answer_width(self) -> int:
        """The number of words."""
        found: Any = self.own
        return self.config.words if found is None else int(found.module.words)

    @property
    def word_side(self) -> int:
        """Side in pixels of a word in the copy that the tokeniser sees: half a patch where that is whole."""
        patch = self.vit.patch[0]
        return patch // 2 if patch % 2 == 0 and patch > 2 else patch

    def paper_views(self) -> list[Pipeline]:
        """Crop, flip and colour jitter of 0.4."""
        (view,) = super().paper_views()
        return [Pipeline((*view.ops, ColorJitter(0.4, 0.4, 0.4)), name="view")]

    # ---- words -----------------------------------------------------------------------------------------------
    @torch.no_grad()
    def copy(self, x: Tensor) -> Tensor:
        """The copy (N, C, h, w) in [0, 1] of views that the tokeniser sees, of half their size."""
        unit = x.float() * self.pixel_std[:, None, None] + self.pixel_mean[:, None, None]
        if self.word_side == self.vit.patch[0]:
            return unit
        return interpolate(unit, [side // 2 for side in x.shape[2:]], mode="bilinear", antialias=True)

    @torch.no_grad()
    def word_rows(self, x: Tensor) -> Tensor:
        """What k-means compares: (N, L, P) of the copy's patches."""
        side, small = self.word_side, self.copy(x)
        if self.config.word_features == "pixels":
            return patchify(small, (side, side))
        return objectives.hog_targets(small, side, cell=side // _cells(side), window=0)

    @torch.no_grad()
    def words(self, x: Tensor) -> Tensor:
        """Words (N, L) of views.

        Raises:
            UserError: a tokeniser of one's own gives another number of words.
        """
        if self.own is None:
            return self.codebook(self.word_rows(x))
        found = self.own(self.copy(x))
        rows, columns = self.vit.grid
        if tuple(found.shape) != (len(x), rows * columns):
            raise UserError(
                f"tokeniser={self.config.tokeniser}: gives {tuple(found.shape)} words, not {(len(x), rows * columns)}"
            )
        return found.long()

    # ---- stages ----------------------------------------------------------------------------------------------
    def stage_plan(self, stage: str) -> Stage:
        """The first stage has a length of its own."""
        return Stage(settings={"steps": self.config.tokeniser_steps}) if stage == "words" else Stage()

    def optimisers(self) -> dict[str, Any]:
        """None for k-means; then one."""
        return {} if self.stage == "words" else super().optimisers()

    def step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """A round of k-means, then steps of masked prediction."""
        if self.stage != "words":
            return super().step(batch)
        return {"loss": self.codebook.learn(self.word_rows(batch["views"][0]))}

    def objective(self, x: Tensor, answers: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Cross-entropy of the hidden words."""
        words = self.words(x)
        return {"loss": objectives.beit(answers, words, mask), "accuracy": accuracy(answers[mask], words[mask])}

    @torch.no_grad()
    def pictures(self, x: Tensor) -> dict[str, Tensor]:
        """What the report shows of images: visible patches, words said and true in pixels (k-means), the original."""
        mask = self.hide(x)
        shown = {"visible": self.visible(x, mask)}
        if self.own is None and self.config.word_features == "pixels":
            true = self.words(x)
            said = torch.where(mask, self.answers(x, mask).argmax(2), true)
            shown |= {"restored": self._pixels(said), "words": self._pixels(true)}
        return shown | {"original": x}

    def _pixels(self, words: Tensor) -> Tensor:
        """Words (N, L) as pictures of the views' size, normalised."""
        side, (rows, columns) = self.word_side, self.vit.grid
        small = unpatchify(self.codebook.weight[words], (side, side), (rows * side, columns * side))
        large = interpolate(small, (self.config.image_size,) * 2, mode="bilinear")
        return (large - self.pixel_mean[:, None, None]) / self.pixel_std[:, None, None]


def _cells(side: int) -> int:
    """Cells along a side of a word for gradient histograms: two where they fit."""
    return 2 if side % 2 == 0 and side >= 4 else 1


def _imported(text: str) -> nn.Module:
    """The module that module:name names, or that the class or function of that name makes."""
    module, colon, name = text.partition(":")
    if not colon:
        raise UserError(f"tokeniser={text}: use kmeans, or module:name of your own")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"tokeniser={text}: can't be imported ({error}); give module:name") from error
    made = found if isinstance(found, nn.Module) else found()
    if not isinstance(made, nn.Module) or not isinstance(getattr(made, "words", None), int):
        raise UserError(
            f"tokeniser={text}: needs to be a torch module with an attribute words, the number of its words"
        )
    return made
