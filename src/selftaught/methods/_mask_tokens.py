"""What methods share that hide patches behind a mask token: a ViT sees all places, and answers for the hidden ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from selftaught import networks
from selftaught.catalog.rules import Natural, Range
from selftaught.errors import UserError
from selftaught.methods._encoder import EncoderConfig, EncoderMethod
from selftaught.networks.masks import attention_masks, blockwise_masks, grid_mask, random_masking, unit_masks
from selftaught.networks.tokens import patchify, unpatchify
from selftaught.views import HorizontalFlip, Pipeline, RandomResizedCrop


@dataclass
class MaskTokenConfig(EncoderConfig):
    """Options of methods that hide patches behind a mask token."""

    encoder: str = "vit_base_patch16_224"
    """A ViT of timm, or vit-nano or vit-mini for small images."""
    crop: float = 0.67
    pool: Literal["avg", "token"] = "avg"
    """Embedding: the mean of the patch tokens, or the class token."""
    mask: Literal["units", "block", "random", "grid", "attention"] = "block"
    """What is hidden: squares of mask_unit patches, blocks, single patches, three of four on a grid, or what the
    encoder attends to most."""
    mask_ratio: Annotated[float, Range(0, below=1)] = 0.4
    """Share of the patches that is hidden."""
    mask_unit: Natural = 0
    """Side of the squares in patches; 0 takes 2, or 1 where that doesn't divide the grid."""
    weight_decay: float = 0.05
    beta2: Annotated[float, Range(0, below=1)] = 0.999
    """Second beta of AdamW."""


class MaskTokens(EncoderMethod):
    """Base of the one-stream masked methods: a subclass names the head's width, the targets and the objective."""

    config_class = MaskTokenConfig
    config: MaskTokenConfig
    modalities = ("image",)
    compares = False

    def build(self) -> None:
        """The ViT, the mask token, and a linear layer that answers for each patch."""
        super().build()
        self.mask_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, self.vit.dim), std=0.02))
        self.answer = nn.Linear(self.vit.dim, self.answer_width())
        nn.init.trunc_normal_(self.answer.weight, std=0.02)
        nn.init.zeros_(self.answer.bias)

    @property
    def vit(self) -> networks.Encoder:
        """The encoder."""
        found: Any = self.encoder
        return found

    def encoder_options(self, name: str) -> dict[str, Any]:
        """Pooling.

        Raises:
            UserError: an encoder without patches.
        """
        if not networks.plain_vit(name):
            raise UserError(f"encoder={name}: {self.slug} hides tokens; use a ViT such as vit_small_patch16_224")
        return {"global_pool": "avg", "fc_norm": False} if self.config.pool == "avg" else {}

    def answer_width(self) -> int:
        """How many numbers the head gives for a patch."""
        raise TypeError(f"{type(self).__name__} names no width")

    # ---- views and masks -------------------------------------------------------------------------------------
    def views(self) -> list[Pipeline]:
        """One view per image."""
        return self.chosen_views(1)

    def paper_views(self) -> list[Pipeline]:
        """Crop and flip."""
        c = self.config
        return [Pipeline((RandomResizedCrop(c.image_size, (c.crop, 1.0)), HorizontalFlip()), name="view")]

    @torch.no_grad()
    def hide(self, x: Tensor) -> Tensor:
        """Which patches of views (N, C, H, W) are hidden: (N, L) bool."""
        c, n, grid, device = self.config, len(x), self.vit.grid, x.device
        if c.mask == "units":
            unit = c.mask_unit or (2 if all(side % 2 == 0 for side in grid) else 1)
            return unit_masks(n, grid, c.mask_ratio, unit=unit, device=device)
        if c.mask == "block":
            return blockwise_masks(n, grid, c.mask_ratio, exact=False, device=device)
        if c.mask == "random":
            return random_masking(n, grid[0] * grid[1], c.mask_ratio, device=device)[1]
        if c.mask == "grid":
            return grid_mask(n, grid, device=device)
        return attention_masks(self.vit.attention(x), c.mask_ratio)

    def answers(self, x: Tensor, mask: Tensor) -> Tensor:
        """What the network says of all patches (N, L, width) when those of the mask are hidden."""
        return self.answer(self.vit.tokens(x, mask=mask, mask_token=self.mask_token)[1])

    def cut(self, x: Tensor) -> Tensor:
        """Patches (N, L, C p p), channel after channel."""
        return patchify(x, self.vit.patch)

    def whole(self, patches: Tensor) -> Tensor:
        """Patches put back together: (N, C, H, W)."""
        return unpatchify(patches, self.vit.patch, (self.config.image_size,) * 2)

    def visible(self, x: Tensor, mask: Tensor) -> Tensor:
        """The image with its hidden patches grey."""
        return self.whole(self.cut(x).masked_fill(mask[:, :, None], 0.0))

    # ---- training --------------------------------------------------------------------------------------------
    def objective(self, x: Tensor, answers: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Named terms of the views x, what the network says of their patches, and which were hidden."""
        raise TypeError(f"{type(self).__name__} defines no objective")

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Hide, answer, compare; a mean over the rows of this process."""
        x = batch["views"][0]
        mask = self.hide(x)
        return self.objective(x, self.answers(x, mask), mask)
