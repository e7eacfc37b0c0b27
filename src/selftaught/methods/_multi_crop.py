"""What methods with multi-crop share: large crops, small crops, one head over all of them, parts frozen at first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor, cat, nn
from torch.optim import SGD

from selftaught import networks
from selftaught.catalog.rules import Natural, PositiveShare
from selftaught.errors import UserError
from selftaught.methods._encoder import EncoderConfig, EncoderMethod
from selftaught.views import Op, Pipeline, RandomResizedCrop, Resize

SMALLEST = 24
"""Pixels of a small crop, at least, where the size is chosen automatically."""


@dataclass
class MultiCropConfig(EncoderConfig):
    """Options of methods that see some large and several small crops of every image."""

    one_forward: bool = True
    local_crops: Natural = 6
    """Small crops per image, beside the two large ones; 0 for none."""
    local_size: Natural = 0
    """Side of the small crops in pixels; 0 takes 3/7 of image_size (96 for 224), at least 24."""
    local_crop: PositiveShare = 0.05
    """Smallest share of the image that a small crop keeps; the largest is the option crop, where large ones begin."""


class MultiCrop(EncoderMethod):
    """Base of the methods with multi-crop; goes behind :class:`JointEmbedding` in a class's list of bases."""

    config_class: ClassVar[type[EncoderConfig]] = MultiCropConfig
    config: MultiCropConfig
    encoder: nn.Module

    def build(self) -> None:
        """An encoder that takes both sizes of crops."""
        super().build()
        if self.length is not None:
            return
        c = self.config
        patch = getattr(getattr(self.encoder.model, "patch_embed", None), "patch_size", (1, 1))[0]
        if c.local_crops and self.local_side % patch:
            raise UserError(f"local_size={self.local_side} isn't a multiple of {c.encoder}'s patch of {patch} pixels")

    def encoder_options(self, name: str) -> dict[str, Any]:
        """What the encoder of this timm name has to be told to take images of several sizes."""
        import timm

        timm_name = networks.named_vit(name)[0]
        plain = timm.get_pretrained_cfg(timm_name) if self.config.local_crops and timm.is_model(timm_name) else None
        if plain is None or not plain.fixed_input_size:
            return {}
        if not networks.plain_vit(name):
            raise UserError(f"encoder={name} takes one image size only: use local_crops=0, a ViT or a ResNet")
        return {"dynamic_img_size": True}

    @property
    def local_side(self) -> int:
        """Side of the small crops in pixels."""
        c = self.config
        return c.local_size or min(c.image_size, max(SMALLEST, 8 * round(3 * c.image_size / 56)))

    # ---- views -----------------------------------------------------------------------------------------------
    def views(self) -> list[Pipeline]:
        """Two large crops, then the small ones."""
        return self.chosen_views(2) + self.local_views(self.config.local_crops)

    def local_views(self, count: int) -> list[Pipeline]:
        """The small crops: the recipe of the large ones with another size and share of the image."""
        return [self.smaller(view, f"local {i + 1}") for i, view in enumerate(self.chosen_views(count))]

    def smaller(self, view: Pipeline, name: str) -> Pipeline:
        """A view with its crop replaced by a small one."""
        scale = (self.config.local_crop, self.config.crop)
        ops: list[Op] = []
        for op in view.ops:
            if isinstance(op, Resize):  # mild views show the whole image
                op = RandomResizedCrop(self.local_side, scale)
            ops.append(replace(op, size=self.local_side, scale=scale) if isinstance(op, RandomResizedCrop) else op)
        return Pipeline(tuple(ops), name=name)

    # ---- networks --------------------------------------------------------------------------------------------
    def embed_crops(
        self, xs: Sequence[Tensor], encoder: Callable[[Tensor], Tensor], head: Callable[[Tensor], Tensor]
    ) -> list[Tensor]:
        """Every crop's output: crops of one size go through the encoder together, all features through the head."""
        found = head(cat(self.embed_views(xs, encoder)))
        return list(found.chunk(len(xs)))

    # ---- the first steps -------------------------------------------------------------------------------------
    def frozen_at_first(self) -> tuple[nn.Module, bool]:
        """A module that learns later than the others, and whether it still waits; none does by default."""
        return self, False

    def finish_optimizer(self, optimizer: Any) -> Any:
        """Not torch's fused SGD: it fails where a parameter joins in later."""
        if isinstance(optimizer, SGD):
            for group in optimizer.param_groups:
                group["fused"] = None
        return optimizer

    def edit_gradients(self, optimizer: Any) -> None:
        """Drop the gradients of what is frozen at first: no step, no decay, no momentum."""
        module, waits = self.frozen_at_first()
        if waits:
            for parameter in module.parameters():
                parameter.grad = None
