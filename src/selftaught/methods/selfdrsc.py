"""SelfDRSC: two rolling-shutter pictures, read in opposite directions, made a short global-shutter video
(Shang et al., ICCV 2023, arXiv 2305.19862).

A network makes the frames G_0, G_i, G_1 at the start, an instant and the end of the read-out. Flows between them, by a
network that is frozen, tell where each pixel was when its row was read; so both pictures can be made again:

    L = sum over { whole, in two parts } x { t2b, b2t } ( Charb + 0.1 Perc )  +  0.1 sum over levels TV(flow)

Stages: "flow" teaches a small flow network on known motions (where no given one is taken); "self" is the above;
"distill" learns besides from the frozen network of before, which sees a larger patch and so has no border there.
With ``supervision=gs`` it is IFED, which learns from clean frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from selftaught import networks, objectives
from selftaught.catalog.rules import Count, Natural, NonNegative, Positive, Share, Widths
from selftaught.data.rolling_shutter import Between
from selftaught.engine.ema import MovingAverage
from selftaught.engine.method import LearningRateScaling, MethodConfig, Optim, Stage
from selftaught.errors import UserError
from selftaught.methods._dual_shutter import DualShutterMethod, three_instants
from selftaught.networks.drsc import DRSC, MULTIPLE
from selftaught.networks.rolling_shutter import PAIRS
from selftaught.views import Pipeline, RandomCrop, Recipe, View

__all__ = ["SelfDRSC"]

FlowChoice = Literal["small", "pwc", "raft-small", "raft-large"]


@dataclass
class Config(MethodConfig):
    """SelfDRSC's options; the defaults are the official recipe for RS-GOPRO."""

    lr: float = 1e-4
    lr_scaling: LearningRateScaling = "none"
    weight_decay: float = 0.01
    final_lr: float = 1e-3
    patch: Count = 256
    """Side of the training patches, a multiple of 32."""
    width: Count = 32
    """Channels c of the context and synthesis networks."""
    flow_widths: Widths = "192-128-96-48"
    """Channels of the four blocks of the network's own flow network, coarse to fine."""
    instants: Count = 8
    """Intervals of the read-out, between which the training instants lie; one frame more comes out."""
    supervision: Literal["self", "gs"] = "self"
    """gs: learn from clean frames (the data's own field, or the video that pairs are made of): IFED, the baseline."""
    mid: bool = True
    """Whether the pictures are made again in two parts, too, which the middle frame belongs to."""
    perceptual: NonNegative = 0.1
    """Weight of the distance of features."""
    features: Literal["vgg", "random"] = "vgg"
    """Features of that distance: VGG19's third block, or three convolutions with random weights."""
    smoothness: NonNegative = 0.1
    """Weight of the variation of the flows."""
    align_corners: bool = False
    """Warp exactly; False is half a pixel off at the borders, as the released code."""
    released: bool = False
    """Multiply the first block's velocity by the time code once more, as the released code does (for its weights)."""
    start: Literal["random", "mean"] = "random"
    """mean: the last layers begin at 0, so that every frame begins as the mean of both pictures; for short runs."""
    flow: FlowChoice = "small"
    """Frozen flow network: PWC-Net (--flow-weights), torchvision's RAFT, or a small one, learnt in the first stage."""
    flow_weights: str = ""
    """File with PWC-Net's weights."""
    flow_steps: Natural = 20_000
    """Steps of the first stage, where the flow network is the small one; 0: Lucas and Kanade's method alone."""
    flow_lr: Positive = 1e-3
    """Learning rate of that stage."""
    flow_reach: Positive = 16.0
    """Largest shift in pixels that the small flow network learns."""
    distill_steps: Natural = 300_000
    """Steps of the last stage; 0 leaves it out."""
    distill_batch: Natural = 0
    """Samples of a batch of the last stage; 0: as many as before."""
    distill_lr: Positive = 5e-5
    """Learning rate of the last stage."""
    distill_final_lr: Share = 0.02
    """Share of it that its cosine ends at."""
    distill_patch: Count = 320
    """Side of the last stage's patches, a multiple of 32, which the teacher sees whole."""
    margin: Natural = 32
    """Pixels on each side of a patch that only the teacher of the last stage sees."""
    teacher_decay: Share = 1.0
    """Decay of the teacher's moving average; 1 is a frozen copy."""
    readout: Count = 8
    """Frames of a plain video from the start to the end of a read-out that a pair is made of."""
    between: Between = "flow"
    """How rows between two frames of a video are made: along dense optical flow, blended, or the nearest frame's."""
    side: Natural = 0
    """Shorter side that frames of a plain video are reduced to, by a whole factor; 0: as they are."""
    pad: Literal["replicate", "circular"] = "replicate"
    """How pictures are brought to multiples of 32 (the code of stage 1 and of stage 2)."""
    shave: Natural = 20
    """Pixels at each border that are not judged."""


PRESETS = {
    "rs-gopro": {
        "flow": "pwc", "steps": 300000, "batch_size": 48, "clip": 20.0, "precision": "32", "distill_batch": 32,
        "pad": "circular",
    },
    "stage1": {
        "flow": "pwc", "steps": 300000, "batch_size": 48, "clip": 20.0, "precision": "32", "distill_steps": 0,
    },
    "raft": {
        "flow": "raft-small", "steps": 300000, "batch_size": 48, "clip": 20.0, "precision": "32", "distill_batch": 32,
        "pad": "circular",
    },
    "ifed": {
        "supervision": "gs", "steps": 300000, "batch_size": 48, "clip": 20.0, "precision": "32", "distill_steps": 0,
    },
    "laptop": {
        "patch": 64, "width": 8, "flow_widths": "32-24-16-12", "features": "random", "align_corners": True, "lr": 1e-3,
        "start": "mean", "flow_steps": 100, "flow_reach": 10.0, "distill_steps": 30, "distill_lr": 2e-4,
        "distill_patch": 64, "margin": 16, "readout": 2, "instants": 2, "side": 64, "shave": 4, "steps": 250,
        "batch_size": 4, "clip": 20.0, "precision": "32",
    },
}  # fmt: skip


class SelfDRSC(DualShutterMethod):
    """SelfDRSC on pairs of pictures of any number of channels, or on plain videos, of which it makes pairs."""

    slug = "selfdrsc"
    config_class = Config
    config: Config
    stages = ("flow", "self", "distill")

    # ---- samples ---------------------------------------------------------------------------------------------
    def patch(self) -> int:
        """Side of the patches now."""
        return self.config.distill_patch if self.stage == "distill" else self.config.patch

    def recipe(self) -> Recipe:
        """One patch of both pictures and of their rows; never flipped or turned, which would turn the read-out."""
        cut = Pipeline((RandomCrop(self.patch()),))
        fields = ("clip", "rows", "gs") if self.config.supervision == "gs" else ("clip", "rows")
        return Recipe(tuple(View(name, name, cut, space="frame") for name in fields))

    # ---- networks --------------------------------------------------------------------------------------------
    def build(self) -> None:
        """The network, its teacher, a flow network and the features."""
        c = self.config
        if c.patch % MULTIPLE:
            raise UserError(f"--patch {c.patch}: must be a multiple of {MULTIPLE}")
        if c.distill_patch % MULTIPLE or (2 * c.margin) % MULTIPLE or 2 * c.margin >= c.distill_patch:
            raise UserError(
                f"--distill-patch {c.distill_patch}, --margin {c.margin}: the patch and what is left of it between two "
                f"margins must be multiples of {MULTIPLE}"
            )
        if c.instants < 2:
            raise UserError(f"--instants {c.instants}: two intervals at least, for an instant between")
        widths = tuple(int(w) for w in c.flow_widths.split("-"))
        self.network = DRSC(3, c.width, self.channels, widths, released=c.released)
        if c.start == "mean":
            self.network.begin_with_mean()
        learns = c.flow == "small" and c.supervision == "self" and c.flow_steps > 0
        self.stages = (*(("flow",) if learns else ()), "self", *(("distill",) if c.distill_steps else ()))
        self.stage = self.stages[0]
        self.flow_net: nn.Module | None = None
        if c.flow == "small" and c.supervision == "self":
            self.flow_net = networks.SmallFlowNet(self.channels)
        if c.distill_steps:
            self.teacher = MovingAverage(self.network, c.teacher_decay)
        self.phi = self._features() if c.perceptual else None

    def setup(self, stage: str) -> None:
        """Before training: the frozen flow network, which a trained run no longer needs."""
        if self.config.supervision == "self" and self.flow_net is None:
            self.flow_net = self._flow_network()

    def _flow_network(self) -> nn.Module:
        c = self.config
        if self.channels not in (1, 3) or (c.flow == "pwc" and self.channels != 3):
            raise UserError(f"--flow {c.flow}: sees colour pictures, these have {self.channels} channels; use small")
        if c.flow == "pwc":
            if not c.flow_weights:
                raise UserError(
                    "--flow pwc: give its weights by --flow-weights FILE, or use --flow small or raft-small"
                )
            return networks.pwc_net(c.flow_weights)
        return networks.raft("small" if c.flow == "raft-small" else "large")

    def _features(self) -> nn.Module:
        if self.config.features == "vgg" and self.channels in (1, 3):
            return networks.vgg_features(((3, 3),), activated=False, normalised=False)
        return networks.random_features(self.channels)

    def phi_of(self, image: Tensor) -> Tensor:
        """Features of pictures in [0, 1]."""
        assert self.phi is not None
        found: Tensor = self.phi(2 * image - 1)[0]
        return found

    def enter_stage(self, stage: str) -> None:
        """The flow network learns in its own stage alone."""
        super().enter_stage(stage)
        if self.flow_net is not None:
            self.flow_net.requires_grad_(stage == "flow")
        self.network.requires_grad_(stage != "flow")

    def stage_plan(self, stage: str) -> Stage:
        """The first and the last stage have lengths of their own."""
        own = {"flow": self.config.flow_steps, "distill": self.config.distill_steps}
        size = {"batch_size": self.config.distill_batch} if stage == "distill" and self.config.distill_batch else {}
        return Stage(settings={"steps": own[stage]} | size) if stage in own else Stage()

    def optimisers(self) -> dict[str, Optim]:
        """One network at a time."""
        c = self.config
        if self.stage == "flow":
            return {"flow": Optim(self.flow_net, "adamw", lr=c.flow_lr, schedule="cosine", clip=1.0)}
        late = self.stage == "distill"
        rate, end = (c.distill_lr, c.distill_final_lr) if late else (c.lr, c.final_lr)
        (main,) = super().optimisers().values()
        main.parameters, main.lr, main.final_lr = self.network, rate, end
        main.weight_decay = c.weight_decay
        return {"main": main}

    def before_step(self) -> None:
        """The teacher is what the stage begins with."""
        if self.stage == "distill" and self.steps == 0:
            self.teacher.restart()

    def after_step(self) -> None:
        """A teacher that isn't frozen follows."""
        if self.stage == "distill" and self.config.teacher_decay < 1:
            self.teacher.update(self.network)

    # ---- learning --------------------------------------------------------------------------------------------
    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """That of the stage."""
        pair, rows = batch["clip"], batch["rows"]
        if pair.dim() != 5 or pair.shape[2] != 2 or rows.dim() != 4:
            raise UserError(f"{self.slug} learns from pairs: give selftaught.data.rolling_shutter.DualReversed(source)")
        rng = np.random.default_rng([self.steps, int(batch["index"][0]), int(self.training)])
        if self.stage == "flow":
            return self.flow_terms(pair.transpose(1, 2).flatten(0, 1), rng)
        whole, place = pair, rows
        if self.stage == "distill":
            pair, rows = self._inner(pair), self._inner(rows)
        at = self._drawn(batch, rng).to(pair)
        codes = networks.time_codes(rows, three_instants(at))
        made = self.network(pair[:, :, 0], pair[:, :, 1], codes)
        terms = self.terms(made.frames, made.flows, pair, rows, at, batch)
        if self.stage == "distill":
            terms |= self.distilled(made.frames, whole, place, at, terms["loss"])
        return terms

    def _drawn(self, batch: Mapping[str, Any], rng: np.random.Generator) -> Tensor:
        """An instant (N,) strictly within the read-out for each sample; with clean frames, one of theirs."""
        intervals = self.config.instants
        if self.config.supervision == "gs":
            intervals = batch["gs"].shape[2] - 1
            if intervals < 2:
                raise UserError("supervision=gs needs three clean frames a pair: --readout 2 or more")
        return torch.from_numpy(rng.integers(1, intervals, len(batch["clip"])) / intervals).float()

    def terms(
        self, frames: Tensor, flows: list[Tensor], pair: Tensor, rows: Tensor, at: Tensor, batch: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        """The self-supervised loss, or IFED's.

        Args:
            frames: (N, 3, C, H, W).
            flows: of the network, by level.
            pair: (N, C, 2, H, W).
            rows: (N, 1, H, W).
            at: (N,) instants of the middle frames.
            batch: with clean frames where they teach.
        """
        c = self.config
        options: dict[str, Any] = {"perceptual": c.perceptual, "smoothness": c.smoothness}
        phi = self.phi_of if self.phi is not None else None
        if c.supervision == "gs":
            clean = batch["gs"].transpose(1, 2)
            clean = self._inner(clean) if self.stage == "distill" else clean
            last = clean.shape[1] - 1
            rank = torch.arange(len(clean), device=clean.device)
            middle = clean[rank, (at * last).round().long()]
            wanted = torch.stack((clean[:, 0], middle, clean[:, last]), 1)
            return objectives.selfdrsc_supervised(frames, wanted, flows, phi, **options)
        again = networks.redistorted(frames, self.flows(frames), rows, at, mid=c.mid, align_corners=c.align_corners)
        return objectives.selfdrsc(again, {"t2b": pair[:, :, 0], "b2t": pair[:, :, 1]}, flows, phi, **options)

    def flows(self, frames: Tensor) -> dict[str, Tensor]:
        """Flows in pixels between the frames (N, 3, C, H, W), by the frozen flow network in one call."""
        where = {"0": 0, "i": 1, "1": 2}
        names = PAIRS if self.config.mid else PAIRS[:2]
        first, second = (torch.cat([frames[:, where[name[k]]] for name in names]) for k in (0, 1))
        self.setup("fit")
        assert self.flow_net is not None
        self.flow_net.eval()
        with torch.autocast(first.device.type, enabled=False):  # a hundredth of a pixel matters
            found = self.flow_net(first.float(), second.float())
        return dict(zip(names, found.chunk(len(names)), strict=True))

    def distilled(self, frames: Tensor, whole: Tensor, rows: Tensor, at: Tensor, loss: Tensor) -> dict[str, Tensor]:
        """What the teacher adds, which sees the whole patch."""
        with torch.no_grad():
            codes = networks.time_codes(rows, three_instants(at))
            taught = self._inner(self.teacher(whole[:, :, 0], whole[:, :, 1], codes).frames)
        phi = self.phi_of if self.phi is not None else None
        near = objectives.selfdrsc_distillation(frames, taught, phi, perceptual=self.config.perceptual)
        return {"loss": loss + near, "distillation": near}

    def _inner(self, x: Tensor) -> Tensor:
        m = self.config.margin
        return x[..., m : x.shape[-2] - m, m : x.shape[-1] - m]

    def flow_terms(self, images: Tensor, rng: np.random.Generator) -> dict[str, Tensor]:
        """Mean end-point error of the small flow network on pictures that were moved by known flows.

        Args:
            images: (N, C, H, W).
            rng: of the flows.
        """
        chance = torch.Generator().manual_seed(int(rng.integers(1 << 31)))
        n, _, height, width = images.shape
        flow = networks.synthetic_flow(n, height, width, most=self.config.flow_reach, generator=chance).to(images)
        strength = torch.rand(n, 1, 1, 1, generator=chance).to(images)
        flow = flow * strength
        assert self.flow_net is not None
        first = networks.flow_warp(images, flow, align_corners=True, masked=False)
        error = (self.flow_net(first, images) - flow).square().sum(1).add(1e-6).sqrt()
        seen = _inside(flow)
        loss = (error * seen).sum() / seen.sum().clamp(min=1)
        return {"loss": loss, "end-point error": loss}


def _inside(flow: Tensor) -> Tensor:
    """1 where a flow points into the picture, (N, H, W)."""
    grid = networks.flow_grid(flow).abs().amax(-1)
    return (grid <= 1).to(flow.dtype)
