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
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor, cat, nn

from selftaught import objectives, views
from selftaught.catalog.rules import Count, Form, Natural, NonNegative, Positive, PositiveShare, Range, Widths
from selftaught.data.slices import Preparation, Slices, label_values, volume_sets
from selftaught.data.source import Source
from selftaught.engine.method import LearningRateScaling, Method, MethodConfig, Optimizer, Schedule, Stage
from selftaught.engine.orders import Order, Partitions, WithReplacement
from selftaught.errors import UserError
from selftaught.evaluation import dice
from selftaught.networks.unet import GlobalHead, LocalHead, UNet
from selftaught.views import Recipe, View

__all__ = ["GlobalLocalSeg", "ring"]

_ROWS = 32
_CONTRASTS = ("D", "D-", "R")
_MEND = "give --labelled 'pairs:?volume=SCANS/&mask=MASKS/'"


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


class GlobalLocalSeg(Method):
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

    @property
    def structures(self) -> list[str]:
        """Names of the classes, the background first; empty before the masks are known."""
        return [name.strip() for name in self.config.structures.split(",")] if self.config.structures else []

    @property
    def preparation(self) -> Preparation:
        """How volumes become slices."""
        return Preparation(self.config.image_size, self.config.pixel, self.config.axis)

    # ---- data ------------------------------------------------------------------------------------------------
    @classmethod
    def streams(cls, source: Any, given: dict[str, Any], opened: Callable[..., Any]) -> dict[str, Any]:
        """All volumes, annotated ones (of the same source where it has masks), and such that validate."""
        found = {"data": source} | {role: opened(given[role]) for role in cls.roles[1:] if role in given}
        if "labelled" not in found:
            if "mask" not in source.fields:
                raise UserError(f"{source.name} has no masks to learn structures from; {_MEND}")
            found["labelled"] = source
        for role in cls.roles[1:]:
            if role in found and "mask" not in found[role].fields:
                raise UserError(f"--{role} {found[role].name} has no masks; {_MEND.replace('labelled', role)}")
        return found

    @staticmethod
    def annotated(sources: dict[str, Any], config: Any) -> dict[str, Any]:
        """The volumes whose masks are learnt from, and those that say when to stop: drawn, or a stream."""
        whole = sources["labelled"]
        held = 0 if "validation" in sources else config.validation_volumes
        rows, rest = volume_sets(len(whole), config.labelled_volumes, held, config.subset)
        found = {"labelled": whole.subset(rows, "annotated")}
        if "validation" in sources:
            found["validation"] = sources["validation"]
        elif len(rest):
            found["validation"] = whole.subset(rest, "to validate")
        return found

    @classmethod
    def arranged(cls, sources: dict[str, Any], config: Any) -> dict[str, Any]:
        """Volumes as slices; of those with masks the chosen ones."""
        preparation = Preparation(config.image_size, config.pixel, config.axis)
        found: dict[str, Any] = {"data": Slices(sources["data"], preparation, parts=config.n_parts)}
        if "labelled" not in sources:
            return found
        masked = cls.annotated(sources, config)
        if not config.structures:
            config.structures = ",".join(_structures(list(masked.values())))
        for role, source in masked.items():
            found[role] = Slices(source, preparation, parts=1, values=_values(config.structures.split(",")))
        return found

    def views_of(self, role: str, source: Any) -> Any:
        """Slices as they are, with their masks where these are learnt from."""
        if role == "data":
            return None
        return Recipe((View("volume", "volume", ()), View("mask", "mask", ())))

    def order(self, source: Any, role: str) -> Order | None:
        """Volumes and partitions for the contrasts, draws of annotated slices for fine-tuning."""
        c = self.config
        if role != "data":
            return WithReplacement(len(source), c.look_every * c.finetune_batch)
        if self.stage == "global" or (self.stage == "local" and c.local_strategy == "D"):
            return Partitions(source.volume_of, source.part_of, c.n_parts)
        return None

    # ---- stages ----------------------------------------------------------------------------------------------
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

    def _dice(self, x: Tensor, mask: Tensor) -> Tensor:
        c = self.config
        if self.training and c.augment == "paper":
            change = {"brightness": c.annotated_intensity, "contrast": 2 * c.annotated_intensity}
            x, mask = views.augment_labelled(x, mask, **change)
        if not (self.training and c.mixup):
            return objectives.soft_dice(self.net(x), mask)
        shares = torch.nn.functional.one_hot(mask, max(2, len(self.structures))).movedim(-1, 1).to(x.dtype)
        x, shares = views.mix_up(x, shares, c.mixup)
        return objectives.soft_dice(self.net(x), shares)

    @torch.no_grad()
    def watched(self, source: Any) -> float:
        """1 - the mean 3-D Dice of the structures of the volumes that validate, as prepared slices."""
        was = self.training
        self.eval()
        found, classes = [], max(2, len(self.structures))
        for v in np.unique(source.volume_of):
            rows = np.flatnonzero(source.volume_of == v)
            x = torch.from_numpy(np.stack([source.read(int(i))[0] for i in rows])).permute(0, 3, 1, 2)
            guess = np.concatenate([self._shares(part).argmax(1) for part in x.split(_ROWS)])
            truth = np.stack([source.sample(int(i), ["mask"])["mask"] for i in rows])
            found.append(np.nanmean(np.r_[dice(guess, truth, classes)[1:], np.nan if truth.any() else 0.0]))
        self.train(was)
        return 1 - float(np.mean(found))

    # ---- what one keeps --------------------------------------------------------------------------------------
    def inputs(self, batch: dict[str, Any]) -> Tensor:
        """Slices (N, C, S, S)."""
        x: Tensor = batch["volume"]
        return x[:, :, 0]

    def _shares(self, x: Tensor) -> np.ndarray:
        shares: np.ndarray = self.net(x.to(self.device)).float().softmax(1).cpu().numpy()
        return shares

    @torch.no_grad()
    def segment(self, volume: np.ndarray, spacing: np.ndarray | None = None, name: str = "volume") -> np.ndarray:
        """Classes (D, H, W) uint8 of a volume (D, H, W, C), slice by slice, at the volume's own resolution.

        Raises:
            SampleError: a volume that can't be prepared.
        """
        slices = torch.from_numpy(self.preparation.slices(volume, spacing, name)).permute(0, 3, 1, 2)
        shares = np.concatenate([self._shares(part) for part in slices.split(_ROWS)])
        return self.preparation.back(shares, volume.shape[:3], spacing)

    @torch.no_grad()
    def slice_features(self, volume: np.ndarray, spacing: np.ndarray | None, name: str = "volume") -> np.ndarray:
        """The mean of the encoder's last map (n, D) of every slice."""
        slices = torch.from_numpy(self.preparation.slices(volume, spacing, name)).permute(0, 3, 1, 2)
        parts = [self.net.encoder(x.to(self.device))[-1].mean((2, 3)) for x in slices.split(_ROWS)]
        return cat(parts).float().cpu().numpy()

    @property
    def mask_values(self) -> list[int]:
        """The number that stands for each class in masks."""
        return _values(self.structures)

    def predict(self, batch: dict[str, Any]) -> Tensor:
        """Logits (N, classes, S, S) of slices."""
        logits: Tensor = self.net(self.inputs(batch))
        return logits

    def features(self, batch: dict[str, Any]) -> Tensor:
        """The mean of the encoder's last map (N, D) of slices."""
        return self.net.encoder(self.inputs(batch))[-1].mean((2, 3))

    def deliverable(self) -> UNet:
        """The U-Net: prepared slices in, logits out."""
        return self.net

    def deliverable_spec(self) -> dict[str, Any]:
        """How to build it, and how slices are prepared."""
        c = self.config
        prepared = {"side": c.image_size, "pixel": c.pixel, "axis": c.axis, "intensity": "(x - p1) / (p99 - p1)"}
        return self.net.spec | {"prepared": prepared, "structures": self.structures}


def _values(structures: list[str]) -> list[int]:
    """The number of each class in masks: the names, where they are numbers, else their places."""
    names = [name.strip() for name in structures]
    whole = all(name.lstrip("-").isdigit() for name in names)
    return [int(name) for name in names] if whole else list(range(len(names)))


def _structures(masked: list[Source]) -> list[str]:
    """Names of the structures: the sources' own, else the numbers in their masks."""
    known = next((source.structures for source in masked if source.structures), None)
    if known:
        return list(known)
    return [str(value) for value in sorted(set().union(*(label_values(source) for source in masked)))]
