"""Masked autoencoders (He et al., CVPR 2022, arXiv 2111.06377) around a ViT of timm.

image -> patches -> + positions -> the visible ones alone through the encoder
      -> width of the decoder -> mask tokens where patches were hidden -> + positions -> blocks -> pixels
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from selftaught.errors import UserError
from selftaught.networks.encoders import Encoder, encoder
from selftaught.networks.tokens import sincos_positions
from selftaught.networks.transformer import MaskedDecoder

__all__ = ["MAE_SIZES", "MaskedAutoencoder", "fix_positions", "mae_vit", "start_as_mae"]

MAE_SIZES: dict[str, tuple[str, int, int]] = {
    "tiny": ("vit_tiny_patch16_224", 2, 32),
    "base": ("vit_base_patch16_224", 16, 224),
    "large": ("vit_large_patch16_224", 16, 224),
    "huge": ("vit_huge_patch14_224", 14, 224),
}
"""timm's name, patch and image size; tiny is the small form of arXiv 2503.02844, with learnt positions."""


@torch.no_grad()
def fix_positions(network: Encoder) -> None:
    """Give a ViT the fixed sine-cosine positions of MAE, 0 for the class token, and take them out of training.

    Raises:
        UserError: the network has no position table of its own (no ViT of timm with absolute positions).
    """
    model: Any = network.model
    table = getattr(model, "pos_embed", None)
    if table is None:
        raise UserError(
            f"encoder={network.spec['name']}: has no absolute positions; use a ViT such as vit_base_patch16_224"
        )
    table.zero_()
    table[0, -math.prod(network.grid) :] = sincos_positions(network.grid, table.shape[2]).to(table.device)
    table.requires_grad_(False)


@torch.no_grad()
def start_as_mae(network: Encoder) -> None:
    """MAE's initial weights: xavier-uniform for linear layers and for the patch projection seen as one, N(0, 0.02) for
    the class token, biases 0, norms 1 and 0.
    """
    model: Any = network.model
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.xavier_uniform_(model.patch_embed.proj.weight.view(model.patch_embed.proj.out_channels, -1))
    if model.cls_token is not None:
        nn.init.normal_(model.cls_token, std=0.02)


class MaskedAutoencoder(nn.Module):
    """An encoder of the visible patches and a light decoder of all.

    Args:
        network: a ViT.
        channels: C.
        dim: width of the decoder.
        depth: blocks of the decoder.
        heads: heads of the decoder.
        positions: of the decoder: "sincos" (fixed) or "learnt".
        project: a linear layer from the encoder's width to the decoder's; off needs equal widths.
        class_position: the decoder's class token has a learnt position, too.

    Attributes:
        encoder: the ViT; what one keeps.
        decoder: a `MaskedDecoder`.
        patch: height and width of a patch.
    """

    def __init__(
        self,
        network: Encoder,
        *,
        channels: int = 3,
        dim: int = 512,
        depth: int = 8,
        heads: int = 16,
        positions: str = "sincos",
        project: bool = True,
        class_position: bool = False,
    ) -> None:
        super().__init__()
        self.encoder, self.patch = network, network.patch
        self.decoder = MaskedDecoder(
            network.grid, network.dim, channels * math.prod(self.patch), dim=dim, depth=depth, heads=heads,
            positions=positions, embed_bias=True, project=project, class_position=class_position,
        )  # fmt: skip

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        """Pixels of all patches.

        Args:
            x: (N, C, H, W), normalised.
            keep: (N, L') int64, the patches that the encoder sees.

        Returns:
            (N, L, p p C), each patch in (row, column, channel) order; see `patchify` with ``channels_last``.
        """
        whole, visible = self.encoder.tokens(x, keep)
        return self.decoder(visible, keep, whole)


def mae_vit(
    size: str = "base",
    *,
    channels: int = 3,
    image_size: int | None = None,
    patch: int | None = None,
    decoder_dim: int = 512,
    decoder_depth: int = 8,
    decoder_heads: int = 16,
) -> MaskedAutoencoder:
    """MAE in one of its published sizes, with its initial weights.

    Args:
        size: "base", "large", "huge" of arXiv 2111.06377, or "tiny", the small form of arXiv 2503.02844: 192 wide, 12
            blocks, learnt positions, and a decoder of the same width with 4 blocks and no layer between.
        channels: C.
        image_size: side in pixels; None: 224 (tiny: 32).
        patch: side of a patch; None: 16 (huge 14, tiny 2).
        decoder_dim: width of the decoder (not for tiny).
        decoder_depth: its blocks (not for tiny).
        decoder_heads: its heads (not for tiny).

    Raises:
        UserError: an unknown size, an image size that isn't a multiple of the patch.
    """
    if size not in MAE_SIZES:
        raise UserError(f"size={size}: choose {', '.join(MAE_SIZES)}")
    name, own_patch, own_size = MAE_SIZES[size]
    side, patch = image_size or own_size, patch or own_patch
    if side % patch:
        raise UserError(f"image_size={side} isn't a multiple of patch={patch}")
    small = size == "tiny"
    options: dict[str, Any] = {"no_embed_class": True} if small else {}
    network = encoder(name, channels=channels, image_size=side, patch_size=patch, **options)
    start_as_mae(network)
    if small:
        shape: dict[str, Any] = {"dim": network.dim, "depth": 4, "heads": 3, "positions": "learnt"}
        return MaskedAutoencoder(network, channels=channels, project=False, class_position=True, **shape)
    fix_positions(network)
    return MaskedAutoencoder(network, channels=channels, dim=decoder_dim, depth=decoder_depth, heads=decoder_heads)
