"""Global and local contrast for segmentation with few annotated volumes (NeurIPS 2020, arXiv 2006.10511).

    1. global     the U-Net's encoder learns that slices of one partition correspond across volumes      (G^D)
    2. local      the encoder stays; the first decoder blocks learn to tell a region from those around it (L^R)
    3. finetune   the whole U-Net learns from the annotated volumes: soft Dice, the best on volumes that validate
    4. self-train only with --self-training: once more, with its own masks of all volumes beside the annotated ones

The same code gives the baselines: ``--global-strategy none`` (random weights), ``R`` (SimCLR), ``rotation``,
``inpainting``, ``restoration``; ``--mixup 0.2`` mixes annotated slices.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, cat, nn

from selftaught import objectives, views
from selftaught.catalog.rules import Count, Form, Natural, NonNegative, Positive, PositiveShare, Range, Widths
from selftaught.engine.method import LearningRateScaling, MethodConfig, Optimizer, Schedule, Stage
from selftaught.engine.orders import Order, Partitions, WithReplacement
from selftaught.errors import UserError
from selftaught.methods._global_local_seg_volumes import VolumeSegmentation
from selftaught.networks.unet import GlobalHead, LocalHead, UNet

__all__ = ["GlobalLocalSeg", "ring"]

_CONTRASTS = ("D", "D-", "R")


@dataclass
class Config(MethodConfig):
    """Options of global and local contrast; the defaults are the paper's for ACDC."""

    image_size: Annotated[int, Range(16)] = 192
    """Side in pixels that slices are cropped or filled up to."""
    pixel: NonNegative = 0.0
    """Millimetres of a pixel that slices are resampled to; 0: the longer side of a slice becomes image_size."""
    axis: Literal["auto", "depth", "height", "width"] = "auto"
    """Axis along which slices follow each other; auto: that of the thickest voxels, else the depth."""
    n_parts: Count = 4
    """Partitions of a volume along that axis."""
    widths: Widths = "16-32-64-128-128-128"
    """Channels of the U-Net's levels."""
    norm_momentum: PositiveShare = 0.01
    """What a batch gives to the moving averages of the norms: a decay of 0.99; runs of few steps need more."""
    global_strategy: Literal["D", "D-", "R", "none", "rotation", "inpainting", "restoration"] = "D"
    """How the encoder is pre-trained: positives across volumes, position for negatives alone, SimCLR, not at all, or by
    a pretext to compare with."""
    local_strategy: Literal["R", "D", "none"] = "R"
    """How the first decoder blocks are: regions of one image, regions across volumes too, or not."""
    temperature: Positive = 0.1
    """tau of both contrasts."""
    decoder_blocks: Annotated[int, Range(1, 5)] = 3
    """Decoder blocks that the local contrast trains."""
    regions: Literal[9, 13] = 13
    """Regions of a map."""
    region_size: Literal[1, 3] = 3
    """Side of a region."""
    region_projection: bool = True
    """Map every flattened region linearly to 128 numbers (wgt_en of the released code)."""
    local_negatives: Annotated[int, Range(0, 5)] = 0
    """Negatives of a region in each map; 0: 5 for R, 4 for D."""
    labelled_volumes: Natural = 2
    """Annotated volumes to learn from; 0: all that are there, less those that validate."""
    subset: Annotated[int, Range(1, 5)] = 1
    """Which draw of them (c1 to c5 of the paper's protocol)."""
    validation_volumes: Natural = 2
    """Further annotated volumes that choose the best weights of fine-tuning; 0 keeps the last."""
    look_every: Count = 50
    """Steps of fine-tuning from one look at them to the next."""
    augment: Literal["paper", "none"] = "paper"
    """Annotated slices: turned, scaled, flipped and bent, or as they are."""
    annotated_intensity: NonNegative = 0.0
    """Largest change of brightness of annotated slices, that of contrast is twice as large; the released code has 0.1
    in its settings and doesn't apply it."""
    mixup: NonNegative = 0.0
    """alpha of mixup of annotated slices, 0.2 where it is used; 0: none."""
    self_training: bool = False
    """Go on with the network's own masks of all volumes beside the annotated ones."""
    global_steps: Natural = 0
    """Steps of the first stage; 0: as many as the run has."""
    local_steps: Natural = 0
    """Steps of the second stage; 0: as many as the run has."""
    finetune_steps: Natural = 0
    """Steps of fine-tuning; 0: as many as the run has."""
    local_batch: Natural = 0
    """Slices in a batch of the second stage; 0: 10 for R, the run's batch size for D."""
    finetune_batch: Count = 20
    """Annotated slices in a batch."""
    structures: Annotated[str, Form(r"[^,]*(,[^,]+)*", "names with commas between, the background first")] = ""
    """What the numbers in the masks stand for; empty: as the data says, else the numbers themselves."""
    optimizer: Optimizer = "adam"
    lr: float = 1e-3
    lr_scaling: LearningRateScaling = "none"
    weight_decay: float = 0.0
    schedule: Schedule = "constant"


PRESETS = {
    "acdc": {"pixel": 1.367, "steps": 10001, "batch_size": 12, "precision": "32"},
    "prostate": {"pixel": 0.625, "steps": 10001, "batch_size": 12, "precision": "32"},
    "mmwhs": {"pixel": 1.5, "image_size": 160, "steps": 10001, "batch_size": 12, "precision": "32"},
    "laptop": {
        "image_size": 48, "widths": "8-16-32", "decoder_blocks": 1, "norm_momentum": 0.1, "lr": 3e-3,
        "global_steps": 150, "local_steps": 50, "steps": 200, "batch_size": 12, "precision": "32", "workers": 0,
    },
}  # fmt: skip


def ring(x: Tensor, first: Tensor, second: Tensor, parts: int) -> Tensor:
    """The batch of G^D (4B, ...): blocks of ``parts``, each volume's slices and their first copies, then once more with
    the second copies.

    Args:
        x: (B, ...) slices, volume by volume and partition by partition.
        first: (B, ...) augmented copies.
        second: (B, ...) other augmented copies.
        parts: partitions of a volume.

    Raises:
        UserError: shapes that differ, no multiple of ``parts``.
    """
    if x.shape != first.shape or x.shape != second.shape or parts < 1 or len(x) % parts:
        shapes = " and ".join(str(tuple(v.shape)) for v in (x, first, second))
        raise UserError(f"a ring of {shapes}: one shape, rows a multiple of {parts} partitions")
    blocks = [
        torch.stack([x.unflatten(0, (-1, parts)), other.unflatten(0, (-1, parts))], dim=1).flatten(0, 2)
        for other in (first, second)
    ]
    return cat(blocks)


def _interleaved(a: Tensor, b: Tensor) -> Tensor:
    return torch.stack([a, b], dim=1).flatten(0, 1)


class GlobalLocalSeg(VolumeSegmentation):
    """Three stages from unlabelled volumes, and a few annotated ones, to a network that segments."""

    slug = "global-local-seg"
    config_class = Config
    config: Config
    modalities = ("volume",)
    default_data = "brain-scans"
    output = "segmentation"
    roles = ("data", "labelled", "validation")
    pixels = "float32"
    compares = False

    # ---- networks --------------------------------------------------------------------------------------------
    def build(self) -> None:
        """The U-Net, and the heads of the stages."""
        c = self.config
        widths = [int(n) for n in c.widths.split("-")]
        times = 1 << (len(widths) - 1)
        if len(widths) < 2 or c.image_size % times:
            raise UserError(
                f"image_size={c.image_size} must be a multiple of {times} for {len(widths)} levels (2 least)"
            )
        self.net = UNet(self.channels, max(2, len(self.structures)), widths, c.norm_momentum)
        if c.global_strategy in _CONTRASTS:
            self.g1 = GlobalHead(widths[-1], c.image_size // times)
        elif c.global_strategy == "rotation":
            self.turns = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 4))
        elif c.global_strategy != "none":
            self.restore = nn.Conv2d(widths[0], self.channels, 3, padding=1)
        if c.local_strategy != "none":
            if c.decoder_blocks >= len(widths):
                raise UserError(f"decoder_blocks={c.decoder_blocks}: a U-Net of {len(widths)} levels has fewer blocks")
            side = c.image_size // times << c.decoder_blocks
            objectives.region_corners(side, c.regions, c.region_size)  # refuses a map that is too small
            self.g2 = LocalHead(self.net.width(c.decoder_blocks), c.region_size, 128 if c.region_projection else 0)
        if c.self_training:
            self.teacher = copy.deepcopy(self.net).requires_grad_(False)
        asked = (
            ("global", c.global_strategy != "none"), ("local", c.local_strategy != "none"), ("finetune", True),
            ("self-train", c.self_training),
        )  # fmt: skip
        self.stages = tuple(stage for stage, wanted in asked if wanted)

    # ---- stages ----------------------------------------------------------------------------------------------
    def order(self, source: Any, role: str) -> Order | None:
        """Volumes and partitions for the contrasts, draws of annotated slices for fine-tuning."""
        c = self.config
        if role != "data":
            return WithReplacement(len(source), c.look_every * c.finetune_batch)
        if self.stage == "global" or (self.stage == "local" and c.local_strategy == "D"):
            return Partitions(source.volume_of, source.part_of, c.n_parts)
        return None

    def stage_plan(self, stage: str) -> Stage:
        """Own steps and batches; fine-tuning keeps the weights of the best Dice of the volumes that validate."""
        c = self.config
        steps = {"global": c.global_steps, "local": c.local_steps}.get(stage, c.finetune_steps)
        settings: dict[str, Any] = {"steps": steps} if steps else {}
        if stage == "global":
            return Stage(settings=settings, roles=("data",))
        if stage == "local":
            rows = c.local_batch or (10 if c.local_strategy == "R" else 0)
            return Stage(settings=settings | ({"batch_size": rows} if rows else {}), roles=("data",))
        roles = ("labelled",) if stage == "finetune" else ("labelled", "data")
        return Stage(settings=settings | {"batch_size": c.finetune_batch}, keep="best", watch="validation", roles=roles)

    def enter_stage(self, stage: str) -> None:
        """Freeze what the stage leaves alone; self-training looks back at what fine-tuning left."""
        super().enter_stage(stage)
        if stage == "self-train":
            self.teacher.load_state_dict(self.net.state_dict())
        self.requires_grad_(False)
        self.trained_modules().requires_grad_(True)

    def trained_modules(self) -> nn.Module:
        """The encoder and its head; the first decoder blocks and theirs; the whole U-Net."""
        c = self.config
        if self.stage == "global":
            if c.global_strategy in _CONTRASTS:
                return nn.ModuleList([self.net.encoder, self.g1])
            if c.global_strategy == "rotation":
                return nn.ModuleList([self.net.encoder, self.turns])
            return nn.ModuleList([self.net.encoder, *self.net.blocks, self.net.last, self.restore])
        if self.stage == "local":
            return nn.ModuleList([*self.net.blocks[: c.decoder_blocks], self.g2])
        return self.net

    def train(self, mode: bool = True) -> GlobalLocalSeg:
        """Training mode, but not for the teacher; the frozen encoder's norms follow the data, as in the paper."""
        super().train(mode)
        if hasattr(self, "teacher"):
            self.teacher.eval()
        return self

    # ---- learning --------------------------------------------------------------------------------------------
    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """That of the stage."""
        if self.stage == "self-train":
            labelled, own = batch["labelled"], self.inputs(batch["data"])
            with torch.no_grad():
                guess = self.teacher(own).argmax(1)
            known = self._dice(self.inputs(labelled), labelled["mask"])
            pseudo = self._dice(own, guess)
            return {"annotated": known, "own masks": pseudo, "loss": (known + pseudo) / 2}
        x = self.inputs(batch)
        if self.stage == "global":
            return {"loss": self._global(x)}
        if self.stage == "local":
            return {"loss": self._local(x)}
        return {"loss": self._dice(x, batch["mask"])}

    def _global(self, x: Tensor) -> Tensor:
        c = self.config
        if c.global_strategy == "rotation":
            turned = torch.stack([x.rot90(k, (2, 3)) for k in range(4)], dim=1).flatten(0, 1)
            return objectives.rotation(self.turns(self.net.encoder(turned)[-1]))
        if c.global_strategy in ("inpainting", "restoration"):
            damaged = views.paint_over(x) if c.global_strategy == "inpainting" else views.context_swap(x)
            restored = self.restore(self.net.last(self.net.decode(self.net.encoder(damaged))))
            return (restored - x).square().mean()
        first, second = (views.shift_intensity(views.random_crops(x)) for _ in range(2))
        if c.global_strategy == "R":
            return objectives.global_random(self._z(_interleaved(first, second)), temperature=c.temperature)
        if c.global_strategy == "D-":
            z = self._z(cat([x, first, second]))
            return objectives.global_domain_minus(z, parts=c.n_parts, temperature=c.temperature)
        z = self._z(ring(x, first, second, c.n_parts))
        return objectives.global_domain(z, parts=c.n_parts, temperature=c.temperature)

    def _z(self, x: Tensor) -> Tensor:
        z: Tensor = self.g1(self.net.encoder(x)[-1])
        return z

    def _local(self, x: Tensor) -> Tensor:
        c = self.config
        first, second = views.shift_intensity(x), views.shift_intensity(x)
        both = _interleaved(first, second) if c.local_strategy == "R" else cat([first, second])
        with torch.no_grad():
            maps = self.net.encoder(both)
        f = self.g2(self.net.decode(maps, c.decoder_blocks))
        options: dict[str, Any] = {
            "regions": c.regions, "size": c.region_size, "weight": self.g2.weight, "temperature": c.temperature,
        }  # fmt: skip
        if c.local_strategy == "R":
            return objectives.local_random(f, negatives=c.local_negatives or 5, **options)
        return objectives.local_domain(f, parts=c.n_parts, negatives=c.local_negatives or 4, **options)
