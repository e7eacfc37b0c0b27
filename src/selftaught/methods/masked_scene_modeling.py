"""Masked Scene Modeling: hidden voxels of a scan predict a teacher's features of the other view, level by level.

Two views of a scan, each on a grid of voxels. Random coarse voxels of a view are hidden with all that they contain; the
student's encoder never gets them. Its decoder goes up from the coarsest level: at every level learnt tokens stand in
for the hidden voxels; what it makes of them is compared with the teacher's features at the same place in the other
view, and goes on to the next finer level. The teacher is the student's momentum copy. arXiv 2504.06719; pre-training
code was never published: heads, distance and schedule of the temperature are a reconstruction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from selftaught import networks, objectives
from selftaught.catalog.rules import Count, Natural, Positive, PositiveShare, Range, Share, Widths
from selftaught.engine.ema import MovingAverage, cosine_decay
from selftaught.engine.method import LearningRateScaling, Method, MethodConfig, Optimizer
from selftaught.errors import SampleError, UserError
from selftaught.networks.point_encoder import PointEncoder, Scene, mean_rows
from selftaught.networks.sparse import restricted
from selftaught.views import (
    CentreCloud,
    CloudContrast,
    CropCloud,
    FlipCloud,
    JitterColours,
    JitterPlaces,
    KeepPlace,
    OnePerVoxel,
    Pipeline,
    Recipe,
    ScaleCloud,
    ShiftColours,
    TurnCloud,
    View,
)

__all__ = ["MaskedSceneModeling"]

_SURVEYED, _ROWS = 32, 2048


@dataclass
class Config(MethodConfig):
    """Masked Scene Modeling's options; the defaults are the paper's."""

    optimizer: Optimizer = "adamw"
    lr: float = 1.5e-3
    lr_scaling: LearningRateScaling = "none"
    weight_decay: float = 0.05
    warmup_epochs: float = 60.0
    momentum: Annotated[float, Range(0, below=1)] = 0.9
    beta2: Annotated[float, Range(0, below=1)] = 0.95
    """Second beta of AdamW."""
    voxel: Positive = 0.02
    """Edge of the finest voxels in metres; every level doubles it."""
    widths: Widths = "32-64-128-256-384"
    """Widths of the levels on the way down, finest first."""
    up_widths: Widths = "384-256-128-96-64"
    """Widths of the levels on the way up, coarsest first."""
    blocks: Natural = 2
    """Residual convolution blocks per level and way."""
    attention: Natural = 2
    """Attention blocks per coarse level and way; 0 is convolutions alone."""
    attention_levels: Natural = 2
    """Coarsest levels that have attention."""
    convolution: bool = True
    """False leaves the convolution blocks out: attention alone."""
    window: Count = 1024
    """Voxels along the curve that attention sees."""
    attention_dropout: Annotated[float, Range(0, below=1)] = 0.1
    """Dropout of attention weights."""
    drop_path: Annotated[float, Range(0, below=1)] = 0.4
    """Drop path of the last block, growing linearly over the blocks."""
    crop: Count = 240_000
    """Points of a view at most, those nearest to one that is drawn."""
    mask_ratio: Annotated[float, Range(0, below=1)] = 0.4
    """Share of the coarsest voxels that are hidden; 0: every voxel is compared (distillation without masks)."""
    mask_order: Literal["bottom-up", "top-down"] = "bottom-up"
    """Hide coarse voxels and all they contain, or fine ones."""
    mask_patch: Count = 1
    """Edge of the hidden cubes, in voxels of the level where they are drawn."""
    objective: Literal["prototype", "cosine", "mse", "contrast", "input"] = "prototype"
    """Distance of prediction and target; contrast (as MSC's) and input (colour and normal restored) are baselines."""
    supervised: Literal["all", "last"] = "all"
    """Levels that are compared; last is the finest alone."""
    cross_view: bool = True
    """The teacher sees the other view; else the same one, whole."""
    head: Widths = "2048-2048-256"
    """Widths of the projection heads (prototype), or of the predictors' hidden layers without the last (others)."""
    prototypes: Count = 1024
    """Prototypes K."""
    targets: Literal["sinkhorn", "centre"] = "sinkhorn"
    """How the teacher's logits become targets."""
    temperature: Positive = 0.1
    """Temperature of the student."""
    target_temperature: Positive = 0.04
    """Temperature of the teacher at the start."""
    target_temperature_end: Positive = 0.07
    """Temperature of the teacher after the warm-up."""
    target_warmup: Share = 0.1
    """Share of the run over which the teacher's temperature rises."""
    center_momentum: Share = 0.9
    """Momentum of the centre (targets centre)."""
    contrast_temperature: Positive = 0.4
    """Temperature of the contrast."""
    target_decay: Share = 0.996
    """Decay of the teacher at the start."""
    target_final: Share = 1.0
    """Decay of the teacher at the end."""
    keep: Literal["teacher", "student"] = "teacher"
    """Which network is delivered; in short runs the momentum copy lags behind."""
    turn: Annotated[float, Range(0, 180)] = 180.0
    """Largest turn of a view about the vertical, in degrees."""
    flip: Share = 0.5
    """Chance of a view to be mirrored, along x and along y."""
    colour_jitter: Share = 0.05
    """Deviation of a point's colour, as a share of the range."""
    interpolation: Literal["trilinear", "nearest"] = "trilinear"
    """How levels are read at a point."""
    parity: bool = True
    """Read levels with the authors' half-voxel shift; False reads a voxel's own feature at its middle."""
    used_levels: Literal["all", "finest", "coarsest"] = "all"
    """Levels whose features a point gets."""
    scale_low: PositiveShare = 0.9
    """Least scale of a view; the largest is its inverse mirrored at 1 (0.9: to 1.1)."""


_SMALL = {"widths": "64-128-256-384", "up_widths": "384-256-128-96", "voxel": 0.04}
PRESETS = {
    "scannet": {"epochs": 1800, "batch_size": 12},
    "ablation": {"epochs": 1800, "batch_size": 12, **_SMALL},
    "laptop": {
        "voxel": 0.12, "widths": "16-32-64", "up_widths": "64-32-16", "blocks": 1, "attention": 1,
        "attention_levels": 1, "attention_dropout": 0.0, "drop_path": 0.1, "crop": 4000, "head": "128-64",
        "prototypes": 32, "target_decay": 0.99, "keep": "student", "lr": 4e-3, "turn": 10.0, "flip": 0.0,
        "scale_low": 0.95, "colour_jitter": 0.02, "warmup_epochs": 2.0, "steps": 300,
        "batch_size": 2, "clip": 3.0,
    },
}  # fmt: skip


class Prepared(NamedTuple):
    """A view on the grid.

    Attributes:
        scene: voxels and their input.
        truth: per level (V_l, 3), where the voxels' points truly lie.
        hidden: per level (V_l,) bool.
    """

    scene: Scene
    truth: list[Tensor]
    hidden: list[Tensor]


class MaskedSceneModeling(Method):
    """Scans of points with colour, normals and any further features."""

    slug = "masked-scene-modeling"
    config_class = Config
    config: Config
    modalities = ("points",)
    default_data = "point-rooms"
    output = "point features"
    compares = False

    def build(self) -> None:
        """Student with heads, its tokens, and the momentum copy of network and heads.

        Raises:
            UserError: samples without colour and normal columns.
        """
        c, extra = self.config, self.channels - 9
        if self.channels == 3:  # made without data: the columns that every source has
            extra = 0
        if extra < 0:
            raise UserError(f"{self.slug}: points of {self.channels} columns; sources give x y z, colour and normal")
        net = self.network(6 + extra)
        used = {"all": None, "finest": [0], "coarsest": [len(net.widths) - 1]}[c.used_levels]
        self.encoder = PointEncoder(
            net, c.voxel, extra=extra, interpolation=c.interpolation, parity=c.parity, used=used
        )
        self.tokens = nn.ParameterList(nn.Parameter(0.02 * torch.randn(width)) for width in net.widths)
        self.heads = nn.ModuleList(self._head(width) for width in net.widths)
        followed = [self.encoder, self.heads] if c.objective == "prototype" else [self.encoder]
        self.momentum = MovingAverage(nn.ModuleList(followed), c.target_decay)
        for at in range(len(net.widths)):
            self.register_buffer(f"center{at}", torch.zeros(c.prototypes))

    def network(self, channels: int) -> networks.HUNet:
        """A hybrid sparse U-Net with the run's options."""
        c = self.config
        down, up = ([int(w) for w in text.split("-")] for text in (c.widths, c.up_widths))
        return networks.HUNet(
            channels, down, up, blocks=c.blocks, attention=c.attention, attention_levels=c.attention_levels,
            convolution=c.convolution, window=c.window, dropout=c.attention_dropout, drop_path=c.drop_path,
        )  # fmt: skip

    def _head(self, width: int) -> nn.Module:
        c, widths = self.config, [int(w) for w in self.config.head.split("-")]
        if c.objective == "prototype":
            return networks.dino_head(width, c.prototypes, hidden=widths[0], bottleneck=widths[-1], layers=len(widths))
        out = 6 if c.objective == "input" else width
        return networks.mlp([width, widths[0], out], norm="none", activation="gelu", hidden_bias=True, out_bias=True)

    def survey(self, sources: Any) -> None:
        """Mean and deviation of further features, over points of some training scans."""
        extra = len(self.encoder.feature_mean)
        source = next(iter(sources.values()))
        if not extra:
            return
        rows = []
        for i in np.linspace(0, len(source) - 1, min(_SURVEYED, len(source))).astype(int).tolist():
            try:
                rows.append(source.read(i)[:, 9:])
            except SampleError:
                continue
        if rows:
            values = torch.from_numpy(np.concatenate(rows))
            self._standardise(values.mean(0), values.std(0, correction=0).clamp(min=1e-6))

    def same_survey(self, other: Method) -> None:
        """The same mean and deviation."""
        assert isinstance(other, MaskedSceneModeling)
        self._standardise(other.encoder.feature_mean, other.encoder.feature_std)

    def _standardise(self, mean: Tensor, std: Tensor) -> None:
        copy: Any = self.momentum.average
        for encoder in (self.encoder, copy[0]):
            encoder.feature_mean.copy_(mean)
            encoder.feature_std.copy_(std)

    # ---- views -----------------------------------------------------------------------------------------------
    def recipe(self) -> Recipe:
        """Two views of a scan, each cropped, turned, scaled, mirrored, jittered and recoloured on its own."""
        c = self.config
        ops = (
            KeepPlace(), CropCloud(c.crop), CentreCloud(), TurnCloud(c.turn), TurnCloud(180 / 64, axis="x", p=0.5),
            TurnCloud(180 / 64, axis="y", p=0.5), ScaleCloud((c.scale_low, 2 - c.scale_low)), FlipCloud(c.flip),
            JitterPlaces(), CloudContrast(), ShiftColours(), JitterColours(c.colour_jitter), OnePerVoxel(c.voxel),
        )  # fmt: skip
        return Recipe((View("first", "points", Pipeline(ops)), View("second", "points", Pipeline(ops))))

    def prepared(self, view: dict[str, Tensor]) -> Prepared:
        """A packed view, the true places behind its features, on the grid and masked."""
        c, feat = self.config, view["feat"]
        scene = self.encoder.scene(view | {"feat": feat[:, :-3]})
        truth = [mean_rows(feat[:, -3:], scene.which, len(scene.levels[0]))]
        for level in scene.levels[:-1]:
            coarse, parent, _ = level.family()
            truth.append(mean_rows(truth[-1], parent, len(coarse)))
        hidden = networks.nested_masks(scene.levels, c.mask_ratio, order=c.mask_order, patch=c.mask_patch)
        return Prepared(scene, truth, hidden)

    # ---- training --------------------------------------------------------------------------------------------
    def reconstructed(self, view: Prepared) -> list[Tensor]:
        """The student's outputs (V_l, C_l) at all voxels of a view of which it saw the visible ones."""
        net, scene = self.encoder.net, view.scene
        seen = [~hidden for hidden in view.hidden]
        curves = net.curves()
        encoded = net.encode(scene.x[seen[0]], restricted(scene.levels, seen), curves)
        return net.decode(encoded, scene.levels, seen, self.tokens, curves)

    @torch.no_grad()
    def target(self, view: Prepared) -> list[Tensor]:
        """The teacher's outputs of a view with nothing hidden."""
        copy: Any = self.momentum.average
        return copy[0].net(view.scene.x, view.scene.levels)

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The mean over views and levels; ``teacher_std`` and ``entropy`` show collapse."""
        c = self.config
        views = [self.prepared(batch[name]) for name in ("first", "second")]
        outputs = [self.reconstructed(view) for view in views]
        if c.objective == "input":
            return {"loss": self._restored(views, outputs)}
        taught = [self.target(view) for view in views]
        terms: list[list[Tensor | None]] = []
        facts: dict[str, list[Tensor]] = {"teacher_std": [], "entropy": []}
        for at, view in enumerate(views):
            other = 1 - at if c.cross_view else at
            levels = range(len(view.truth)) if c.supervised == "all" else range(1)
            terms.append([self._level(k, view, outputs[at], views[other], taught[other], facts) for k in levels])
        loss = objectives.average_levels(terms).to(self.device)
        if not loss.requires_grad and torch.is_grad_enabled():  # no voxel had a partner: a step that changes nothing
            loss = loss + 0.0 * sum(p.sum() for p in self.parameters() if p.requires_grad)
        matched = torch.tensor(float(sum(t is not None for view in terms for t in view)))
        means = {name: torch.stack(values).mean() for name, values in facts.items() if values}
        return {"loss": loss, "levels": matched} | means

    def _level(
        self, k: int, view: Prepared, outputs: list[Tensor], other: Prepared, taught: list[Tensor], facts: Any
    ) -> Tensor | None:
        """The term of one level of one view; None where no voxel has a partner."""
        c = self.config
        compared = view.hidden[k] if c.mask_ratio else torch.ones_like(view.hidden[k])
        rows, partner = self._partners(k, compared, view, other)
        least = 2 if c.objective == "contrast" else 1
        if len(rows) < least:
            return None
        if c.objective == "contrast" and len(rows) > _ROWS:
            some = torch.randperm(len(rows))[:_ROWS].to(rows.device)
            rows, partner = rows[some], partner[some]
        target = taught[k][partner].float()
        facts["teacher_std"].append(nn.functional.normalize(target, dim=1).std(0, correction=0).mean())
        made = self.heads[k](outputs[k][rows])
        if c.objective == "prototype":
            return self._prototypes(k, made, target, facts)
        if c.objective == "contrast":
            return objectives.masked_scene_contrast(made, target, temperature=c.contrast_temperature)
        distance = objectives.masked_scene_cosine if c.objective == "cosine" else objectives.masked_scene_mse
        return distance(made, target)

    def _partners(self, k: int, compared: Tensor, view: Prepared, other: Prepared) -> tuple[Tensor, Tensor]:
        """Voxels of level k to compare, and the other view's voxels at their places."""
        rows = compared.nonzero()[:, 0]
        if other is view:
            return rows, rows
        level, scenes = view.scene.levels[k], int(other.scene.levels[k].place[:, 0].max()) + 1
        ends = torch.bincount(level.place[rows, 0], minlength=scenes).cumsum(0).cpu()
        theirs = other.scene.levels[k].offset.cpu()
        reach = self.config.voxel * 2**k
        found, partner = objectives.match_voxels(view.truth[k][rows], other.truth[k], reach, ends, theirs)
        return rows[found], partner

    def _prototypes(self, k: int, made: Tensor, target: Tensor, facts: Any) -> Tensor:
        c, center = self.config, getattr(self, f"center{k}")
        copy: Any = self.momentum.average
        with torch.no_grad():
            logits = copy[1][k](target)
            tau = objectives.teacher_temperature(
                self.progress, c.target_temperature, c.target_temperature_end, c.target_warmup
            )
            q = objectives.masked_scene_targets(logits, temperature=tau, targets=c.targets, center=center)
            if self.training and c.targets == "centre":
                center.lerp_(logits.mean(0).to(center), 1 - c.center_momentum)
            mean = q.mean(0)
            facts["entropy"].append(-(mean * mean.clamp(min=1e-12).log()).sum())
        return objectives.masked_scene_prototypes(made, q, temperature=c.temperature)

    def _restored(self, views: list[Prepared], outputs: list[list[Tensor]]) -> Tensor:
        """Colour and normal of the hidden voxels of the finest level."""
        terms: list[list[Tensor | None]] = []
        for view, made in zip(views, outputs, strict=True):
            rows = view.hidden[0] if self.config.mask_ratio else torch.ones_like(view.hidden[0])
            given = view.scene.x[rows][:, :6]
            terms.append([objectives.masked_scene_input(self.heads[0](made[0][rows]), given) if len(given) else None])
        return objectives.average_levels(terms)

    def trained_modules(self) -> nn.Module:
        """Network, heads and tokens."""
        return nn.ModuleList([self.encoder, self.heads, self.tokens])

    def after_step(self) -> None:
        """Move the teacher along a cosine."""
        c = self.config
        self.momentum.base = cosine_decay(self.steps, self.total_steps, c.target_decay, c.target_final)
        copied: Any = self.momentum.average
        self.momentum.update(nn.ModuleList([self.encoder, self.heads][: len(copied)]))

    # ---- what one keeps --------------------------------------------------------------------------------------
    @property
    def evaluation_rows(self) -> int:
        """One scan at a time: it may have a million points."""
        return 1

    def deliverable(self) -> nn.Module:
        """The teacher's encoder, or the student's."""
        copy: Any = self.momentum.average
        return copy[0] if self.config.keep == "teacher" else self.encoder

    def deliverable_spec(self) -> dict[str, Any]:
        """Sizes of the network and its grid."""
        c = self.config
        return {
            "name": "hunet", "in_channels": 6 + len(self.encoder.feature_mean), "voxel": c.voxel,
            "widths": c.widths, "up_widths": c.up_widths, "blocks": c.blocks, "attention": c.attention,
            "attention_levels": c.attention_levels, "convolution": c.convolution, "window": c.window,
            "features": self.encoder.width, "interpolation": c.interpolation, "parity": c.parity,
        }  # fmt: skip

    def predict(self, batch: dict[str, Any]) -> Tensor:
        """Features (M, 928) of every point of a packed batch."""
        encoder: Any = self.deliverable()
        return encoder.points(batch["points"])

    def features(self, batch: dict[str, Any]) -> Tensor:
        """The mean (N, 928) over every scan's points."""
        return self.deliverable()(batch["points"])
