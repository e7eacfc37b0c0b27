"""What methods around one encoder of clips share: the encoder, the augmentation of clips, views to judge with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from selftaught import networks
from selftaught.catalog.rules import Count, Natural, PositiveShare, Share
from selftaught.engine.method import Method, MethodConfig
from selftaught.views import (
    CenterCrop,
    ClipColorJitter,
    EvenClips,
    FramePart,
    GaussianBlur,
    Grayscale,
    HorizontalFlip,
    Op,
    RandomResizedCrop,
    Recipe,
    Resize,
    SideCrop,
    TemporalCrop,
    View,
)

_MEMORY = 2**31


@dataclass
class ClipConfig(MethodConfig):
    """Options of methods around one encoder of clips."""

    encoder: str = "r3d-50"
    """Network: r3d-50 and its kin (CVRL), resnet3d-18, r2plus1d-18, c3d, shufflenet-3d, swin3d-t ...,
    vit-small-video."""
    frames: Count = 16
    """Frames of a clip."""
    stride: Count = 2
    """Frames of the video from one frame of a clip to the next."""
    image_size: Count = 224
    """Side of the square frames in pixels."""
    augment: Literal["paper", "small", "crop", "none"] = "paper"
    """What is done to a clip, alike to all its frames: the paper's; half as much colour and no blur (small); crop and
    flip alone; or the middle as it is."""
    crop: PositiveShare = 0.3
    """Smallest share of the frame that a crop keeps."""
    flip: Share = 0.5
    """How often a clip is mirrored; 0 where left and right mean something."""
    test_frames: Natural = 0
    """Frames of the clips to judge with; 0: as in training."""
    test_size: Natural = 0
    """Side of the frames to judge with; 0: as in training."""
    test_clips: Count = 1
    """Clips, evenly spaced over the video, whose features are averaged."""
    test_crops: Literal[1, 3] = 1
    """Crops along the longer side, whose features are averaged."""
    normalize_feature: bool = False
    """Scale the features of each view to length 1 before they are averaged: a linear layer then gives the mean of the
    views' logits."""


class ClipMethod(Method):
    """Base of the methods that train one encoder on clips."""

    config_class = ClipConfig
    config: ClipConfig
    modalities = ("clip",)
    default_data = "motion"

    def build(self) -> None:
        """The encoder f."""
        c = self.config
        self.encoder: Any = networks.video_network(
            c.encoder, channels=self.channels, frames=c.frames, image_size=c.image_size
        )

    # ---- views -----------------------------------------------------------------------------------------------
    def augmentation(self) -> tuple[Op, ...]:
        """What is done to a clip: crop, flip, colour, and from the paper's recipe blur."""
        c = self.config
        if c.augment == "none":
            return (Resize(c.image_size), CenterCrop(c.image_size))
        ops: tuple[Op, ...] = (
            RandomResizedCrop(c.image_size, (c.crop, 1.0), (0.5, 2.0)),
            HorizontalFlip(c.flip),
        )
        if c.augment == "crop":
            return ops
        strength = 1.0 if c.augment == "paper" else 0.5
        jitter = ClipColorJitter(0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength, p=0.8)
        return (*ops, jitter, Grayscale(0.2))

    def blur(self, p: float) -> GaussianBlur:
        """A blur with a kernel of a tenth of the side, made odd."""
        return GaussianBlur(p, kernel_size=max(3, self.config.image_size // 10 | 1))

    def part(self, place: int) -> FramePart:
        """What takes clip number ``place`` out of a view that holds several, one after the other."""
        return FramePart(self.config.frames, start=place * self.config.frames)

    @property
    def judged_frames(self) -> int:
        """Frames of a clip to judge with."""
        return self.config.test_frames or self.config.frames

    @property
    def judged_size(self) -> int:
        """Side of the frames to judge with."""
        return self.config.test_size or self.config.image_size

    def evaluation_view(self) -> Recipe:
        """``clip``, the middle of the video; or ``view 1`` ...: clips spread over it, crops along the longer side."""
        c, frames, size = self.config, self.judged_frames, self.judged_size
        whole = (EvenClips(frames, c.stride, clips=c.test_clips), Resize(size))
        if c.test_clips == c.test_crops == 1:
            return Recipe((View("clip", "clip", (*whole, CenterCrop(size))),))
        places = (1,) if c.test_crops == 1 else (0, 1, 2)
        each = [
            (FramePart(frames, start=k * frames), SideCrop(size, place=p)) for k in range(c.test_clips) for p in places
        ]
        views = [View(f"view {k}", "_clips", ops) for k, ops in enumerate(each, start=1)]
        return Recipe((View("_clips", "clip", whole), *views))

    def finetuning_view(self) -> Recipe:
        """A stretch of frames from anywhere in the video, a crop and a flip."""
        c, size = self.config, self.judged_size
        ops = (RandomResizedCrop(size, (c.crop, 1.0), (0.5, 2.0)), HorizontalFlip(c.flip))
        return Recipe((View("clip", "clip", (TemporalCrop(self.judged_frames, c.stride), *ops)),))

    def inputs(self, batch: dict[str, Any]) -> Tensor:
        """The clip, or the first of several views."""
        return batch["clip"] if "clip" in batch else batch["view 1"]

    @property
    def evaluation_rows(self) -> int:
        """Samples that are judged at a time: at most 256, fewer where clips are long, large or many."""
        c = self.config
        each = c.test_clips * c.test_crops * self.channels * self.judged_frames * self.judged_size**2
        rows = 256
        while rows > 1 and rows * each > _MEMORY:
            rows //= 2
        return rows

    # ---- what one keeps --------------------------------------------------------------------------------------
    def features(self, batch: dict[str, Any]) -> Tensor:
        """h (N, D): the encoder's pooled features, the mean over the views to judge with."""
        seen = [batch["clip"]] if "clip" in batch else [x for name, x in batch.items() if name.startswith("view ")]
        found = [self.encoder(x) for x in seen]
        if self.config.normalize_feature:
            found = [normalize(h.float(), dim=1) for h in found]
        return found[0] if len(found) == 1 else torch.stack(found).mean(0)

    def layers(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Features of every stage of the encoder, averaged over time and place: name -> (N, F)."""
        if hasattr(self.encoder, "layers"):
            return dict(self.encoder.layers(self.inputs(batch)))
        return {"embedding": self.encoder(self.inputs(batch))}

    def predict(self, batch: dict[str, Any]) -> Tensor:
        """The embedding h."""
        return self.features(batch)

    def deliverable(self) -> nn.Module:
        """The encoder alone."""
        return self.encoder

    def deliverable_spec(self) -> dict[str, Any]:
        """How to build the encoder."""
        return dict(self.encoder.spec)
