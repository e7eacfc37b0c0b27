"""MAE: a ViT sees a quarter of the patches, a light decoder restores the rest (He et al., 2022, arXiv 2111.06377).

    L = sum_{b,l} m_bl mean_k (pred_blk - t_blk)^2 / sum m,         m = 1 where a patch was hidden

t is a patch's pixels with its own mean and deviation taken out. The encoder never computes what it doesn't see, so that
a step costs little more than the visible patches. Pixels teach details first and classes late: the embedding is
best fine-tuned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from selftaught import networks, objectives, views
from selftaught.catalog.rules import Form, Natural, PositiveShare, Range
from selftaught.errors import UserError
from selftaught.methods._encoder import EncoderConfig, EncoderMethod
from selftaught.networks.mae import MaskedAutoencoder, fix_positions, start_as_mae
from selftaught.networks.masks import blockwise_masks, grid_mask, random_masking
from selftaught.networks.tokens import keep_from_mask, patchify, unpatchify
from selftaught.views import HorizontalFlip, Pipeline, RandomResizedCrop

__all__ = ["MAE"]


@dataclass
class Config(EncoderConfig):
    """MAE's options; the defaults are the paper's ViT-B/16 on ImageNet."""

    encoder: str = "vit_base_patch16_224"
    """A ViT of timm, or vit-nano or vit-mini for small images."""
    augment: Literal["paper", "small", "grey", "mild", "none"] = "paper"  # type: ignore[assignment]  # one more
    """Views: the paper's (crop and flip), small or grey (colour or brightness, too), mild (small
    turns and shifts), none (the image as it is)."""
    crop: PositiveShare = 0.2
    patch: Natural = 0
    """Side of a patch in pixels; 0 takes the encoder's own, or less where images are small."""
    pool: Literal["token", "avg"] = "token"
    """Embedding: the class token, or the mean of the patch tokens."""
    positions: Literal["sincos", "learnt"] = "sincos"
    """Positions of encoder and decoder: fixed, or learnt (then the decoder's class token has one, too)."""
    mask: Literal["random", "block", "grid"] = "random"
    """Which patches are hidden; grid hides three of four whatever the ratio."""
    mask_ratio: Annotated[float, Range(0, below=1)] = 0.75
    """Share of the patches that is hidden."""
    norm_pix: bool = True
    """Restore pixels normalised patch by patch."""
    decoder: Annotated[str, Form(r"[1-9]\d*-[1-9]\d*-[1-9]\d*", "width, blocks and heads as 512-8-16")] = "512-8-16"
    """Width, blocks and heads of the decoder."""
    decoder_project: bool = True
    """A linear layer between encoder and decoder; off needs equal widths."""
    lr: float = 1.5e-4
    beta2: Annotated[float, Range(0, below=1)] = 0.95
    """Second beta of AdamW."""
    weight_decay: float = 0.05
    warmup_epochs: float = 40.0


PRESETS = {
    "imagenet": {"epochs": 800, "batch_size": 4096},
    "imagenet-1600": {"epochs": 1600, "batch_size": 4096},
    "imagenet-large": {"encoder": "vit_large_patch16_224", "epochs": 800, "batch_size": 4096},
    "imagenet-huge": {"encoder": "vit_huge_patch14_224", "epochs": 800, "batch_size": 4096},
    "cifar10": {
        "encoder": "vit_tiny_patch16_224", "image_size": 32, "patch": 2, "augment": "none", "positions": "learnt",
        "norm_pix": False, "decoder": "192-4-3", "decoder_project": False, "weight_decay": 5e-3,
        "warmup_epochs": 20.0, "epochs": 400, "batch_size": 512,
    },
    "laptop": {
        "encoder": "vit-nano", "image_size": 0, "augment": "grey", "crop": 0.4, "pool": "avg", "decoder": "64-2-4",
        "lr": 2e-3, "lr_scaling": "none", "warmup_epochs": 1.0, "steps": 1500, "batch_size": 128,
    },
}  # fmt: skip


class MAE(EncoderMethod):
    """MAE on images of any number of channels."""

    slug = "mae"
    config_class = Config
    config: Config
    modalities = ("image",)
    compares = False

    def build(self) -> None:
        """The encoder and the decoder, with the paper's initial weights."""
        super().build()
        c = self.config
        if not c.pretrained:
            start_as_mae(self.encoder_network)
        if c.positions == "sincos" and not c.pretrained:
            fix_positions(self.encoder_network)
        dim, depth, heads = (int(n) for n in c.decoder.split("-"))
        whole = MaskedAutoencoder(
            self.encoder_network, channels=self.channels, dim=dim, depth=depth, heads=heads, positions=c.positions,
            project=c.decoder_project, class_position=c.positions == "learnt",
        )  # fmt: skip
        self.decoder = whole.decoder

    @property
    def encoder_network(self) -> networks.Encoder:
        """The encoder; a ViT.

        Raises:
            UserError: another network.
        """
        found: Any = self.encoder
        _ = found.grid
        return found

    def encoder_options(self, name: str) -> dict[str, Any]:
        """Patch, pooling, and whether the class token has a position."""
        c = self.config
        if "vit" not in name:
            raise UserError(f"encoder={c.encoder}: {self.slug} hides tokens; use a ViT such as vit_small_patch16_224")
        found: dict[str, Any] = {"patch_size": c.patch} if c.patch else {}
        if c.patch and c.image_size % c.patch:
            raise UserError(f"image_size={c.image_size} isn't a multiple of patch={c.patch}")
        found |= {"no_embed_class": True} if c.positions == "learnt" and not c.pretrained else {}
        return found | ({"global_pool": "avg", "fc_norm": False} if c.pool == "avg" else {})

    # ---- views and masks -------------------------------------------------------------------------------------
    def views(self) -> list[Pipeline]:
        """One view: a crop that may be flipped, or the image as it is."""
        c = self.config
        if c.augment == "none":
            return list(views.plain(c.image_size))
        if c.augment == "paper":
            return [Pipeline((RandomResizedCrop(c.image_size, (c.crop, 1.0)), HorizontalFlip()), name="view 1")]
        return self.chosen_views(1)

    def visible(self, rows: int, device: torch.device) -> Tensor:
        """Numbers of the patches that the encoder sees (rows, L'), drawn anew for every image."""
        c, grid = self.config, self.encoder_network.grid
        if c.mask == "random":
            return random_masking(rows, grid[0] * grid[1], c.mask_ratio, device=device)[0]
        hidden = grid_mask(rows, grid) if c.mask == "grid" else blockwise_masks(rows, grid, c.mask_ratio)
        return keep_from_mask(hidden).to(device)

    # ---- training --------------------------------------------------------------------------------------------
    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The error of the hidden patches."""
        x = batch["views"][0]
        keep = self.visible(len(x), x.device)
        return {"loss": self.error(x, keep, *self.encoder_network.tokens(x, keep))}

    def error(self, x: Tensor, keep: Tensor, whole: Tensor | None, seen: Tensor) -> Tensor:
        """Of the patches that are not in ``keep``, restored from the class token and those that are."""
        mask = self.hidden(keep)
        hidden = mask.nonzero()[:, 1].view(len(x), mask.shape[1] - keep.shape[1])
        prediction, patches = self.decoder(seen, keep, whole, hidden), self.cut(x)
        patches = patches.gather(1, hidden[:, :, None].expand(-1, -1, patches.shape[2]))
        asked = torch.ones_like(hidden, dtype=torch.bool)
        return objectives.mae(prediction, patches, asked, norm_pix=self.config.norm_pix)

    def hidden(self, keep: Tensor) -> Tensor:
        """(N, L) bool, True where a patch is not among those in ``keep``."""
        count = math.prod(self.encoder_network.grid)
        return torch.ones(len(keep), count, dtype=torch.bool, device=keep.device).scatter_(1, keep, False)

    def restore(self, x: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Prediction (N, L, P) of all patches from those in ``keep``, and the mask (N, L) of the hidden ones."""
        whole, seen = self.encoder_network.tokens(x, keep)
        return self.decoder(seen, keep, whole), self.hidden(keep)

    def cut(self, x: Tensor) -> Tensor:
        """Patches (N, L, P) of images, pixel after pixel with its channels."""
        return patchify(x, self.encoder_network.patch, channels_last=True)

    @torch.no_grad()
    def pictures(self, x: Tensor) -> dict[str, Tensor]:
        """What the report shows of images (N, C, H, W): the input's visible patches, restored and original pictures."""
        patch, size = self.encoder_network.patch, x.shape[2:]
        prediction, hidden = self.restore(x, self.visible(len(x), x.device))
        patches = self.cut(x)
        if self.config.norm_pix:  # mean and deviation are not predicted: the patch's own
            mean, variance = patches.mean(2, keepdim=True), patches.var(2, keepdim=True)
            prediction = prediction * (variance + 1e-6).sqrt() + mean
        seen = patches.masked_fill(hidden[:, :, None], 0.0)
        restored = torch.where(hidden[:, :, None], prediction.to(patches.dtype), patches)

        def whole(parts: Tensor) -> Tensor:
            return unpatchify(parts, patch, size, channels_last=True)

        return {"visible": whole(seen), "restored": whole(restored), "original": x}
