"""ProDepth: depth from two frames of a video in which things move (Woo et al., ECCV 2024, arXiv 2407.09303).

Stage "single" is Monodepth2 with a second decoder that says how uncertain the depth is. Stage "multi" freezes it and
learns to match the frame with the one before. Where the raw match and the single frame disagree, something moves: there
the matching costs are mixed with the single frame's distribution, and the loss counts less.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from selftaught.catalog.rules import Natural, NonNegative, Positive, Range, Share
from selftaught.engine.method import Stage
from selftaught.errors import UserError
from selftaught.methods._depth import DepthEncoder, Frames, IntrinsicsHead
from selftaught.methods.monodepth2 import Config as Monodepth2Config
from selftaught.methods.monodepth2 import Monodepth2
from selftaught.networks.cost_volume import track_depth_range
from selftaught.networks.depth import check_multiple
from selftaught.networks.prodepth import MultiFrameNet
from selftaught.networks.projection import disparity_to_depth
from selftaught.objectives.monodepth2 import monodepth2_terms, reprojection_errors
from selftaught.objectives.prodepth import heteroscedastic, prodepth_terms

__all__ = ["ProDepth"]


@dataclass
class Config(Monodepth2Config):
    """ProDepth's options; the defaults are the authors' for KITTI."""

    encoder: DepthEncoder = "lite-mono-8m"
    """Encoder of the single-frame, multi-frame and matching networks: lite-mono-8m, resnet18 or small."""
    scales: Annotated[int, Range(1, 4)] = 3
    single_steps: Natural = 0
    """Steps of the first stage; 0: as many as the second has."""
    bins: Annotated[int, Range(2)] = 128
    """Depths at which frames are matched."""
    binning: Literal["sid", "linear", "inverse"] = "sid"
    """How these are spaced: evenly in log depth, depth or 1 / depth."""
    nearest: NonNegative = 0.0
    """Smallest of them; 0 follows the single frames' depth. The teacher's own unit: 0.12 for the authors' on KITTI."""
    farthest: NonNegative = 0.0
    """Largest of them; 0 follows the single frames' depth."""
    modulation: Literal["full", "hard", "none"] = "full"
    """full: mix by the weight; hard: the single frame alone where things move; none: ManyDepth's volume as it is."""
    threshold: Share = 0.4
    """Weight above which a pixel counts as static."""
    decay: NonNegative = 0.6667
    """How fast the weight falls with the disagreement of match and single frame."""
    consistency: NonNegative = 0.1
    """Weight of the agreement with the single frame where something moves."""
    cv_weight: NonNegative = 0.3
    """Weight of the raw volume's own loss."""
    reweighting: bool = True
    """Whether the photometric loss counts less where something moves."""
    sigma_scale: Positive = 20.0
    """Largest uncertainty of the single frame's depth."""
    uncertainty: Literal["apart", "joint"] = "apart"
    """How it is learnt, by pe / sigma + log sigma: sigma alone, or depth through it, too."""
    freeze_teacher: bool = True
    """Whether single-frame and pose networks stay as they are in the second stage."""
    future: bool = False
    """Whether the frame after is matched as well while training."""
    static_camera: Share = 0.25
    """Share of samples whose other frame is replaced by the frame itself, as if the camera stood still."""
    no_match: Share = 0.25
    """Share of samples whose volume is empty, as for the first frame of a video."""
    test_mode: Literal["none", "static_camera", "zero_cost_volume"] = "none"
    """What is estimated as if the camera stood still, or as if there were no frame before."""
    warm_start: bool = False
    """Whether the multi-frame networks begin with the single-frame network's weights."""


PRESETS = {
    "kitti": {"epochs": 20, "batch_size": 12, "crop": "garg"},
    "kitti-resnet18": {"epochs": 20, "batch_size": 12, "encoder": "resnet18", "pretrained": True, "crop": "garg"},
    "cityscapes": {"epochs": 25, "batch_size": 24, "width": 512, "decay_every": 0.6, "crop": "cityscapes"},
    "manydepth": {
        "epochs": 20, "batch_size": 12, "encoder": "resnet18", "modulation": "none", "reweighting": False,
        "crop": "garg",
    },
    "laptop": {
        "encoder": "small", "pose_encoder": "small", "height": 48, "width": 64, "scales": 1, "bins": 24,
        "warm_start": True, "single_steps": 250, "steps": 150, "batch_size": 8, "lr": 2e-3, "precision": "32",
    },
}  # fmt: skip


class ProDepth(Monodepth2):
    """ProDepth on videos; with ``modulation="none"`` and no reweighting it is ManyDepth with an auxiliary decoder."""

    slug = "prodepth"
    config_class = Config
    config: Config
    stages = ("single", "multi")
    lookback: ClassVar[int] = 1

    # ---- networks and stages ---------------------------------------------------------------------------------
    def build(self) -> None:
        """All networks of both stages.

        Raises:
            UserError: an encoder that can't be cut after its first stage, a range of depths the wrong way round.
        """
        c = self.config
        if c.encoder == "mpvit-small":
            raise UserError("encoder=mpvit-small: ProDepth matches with lite-mono-8m, a ResNet or small")
        if (c.nearest > 0) != (c.farthest > 0) or (c.farthest and c.farthest <= c.nearest):
            raise UserError(
                f"nearest={c.nearest:g} farthest={c.farthest:g}: give both, the smaller first, or 0 for both"
            )
        self.net = MultiFrameNet(
            c.encoder, c.pose_encoder, self.channels, pretrained=c.pretrained, scales=self.scales, bins=c.bins,
            spacing=c.binning, modulation=c.modulation, threshold=c.threshold, decay=c.decay,
            sigma_scale=c.sigma_scale, depths=(c.min_depth, c.max_depth),
        )  # fmt: skip
        if c.nearest:
            self.net.low.fill_(c.nearest)
            self.net.high.fill_(c.farthest)
        self.net.camera = IntrinsicsHead(self.net.pose.encoder.channels[-1])  # the net needs one: delivered with it
        check_multiple(torch.empty(c.height, c.width, device="meta"), self.depth_net.multiple)

    @property
    def intrinsics_head(self) -> Any:  # type: ignore[override]
        """What tells intrinsics that aren't known."""
        return self.net.camera

    @property
    def depth_net(self) -> Any:  # type: ignore[override]
        """The single-frame depth network."""
        return self.net.single.depth

    @property
    def pose_net(self) -> Any:  # type: ignore[override]
        """The network of motion."""
        return self.net.pose

    @property
    def taught(self) -> nn.ModuleList:
        """What the second stage trains."""
        own = [self.net.encoder, self.net.reduce, self.net.decoder, self.net.aux]
        return nn.ModuleList(own if self.config.freeze_teacher else [*own, self.net.single, self.net.pose])

    def stage_plan(self, stage: str) -> Stage:
        """The first stage has a length of its own."""
        steps = self.config.single_steps
        plan = super().stage_plan(stage)
        return replace(plan, settings={"steps": steps}) if stage == "single" and steps else plan

    def trained_modules(self) -> nn.Module:
        """Single-frame networks first, then what matches."""
        if self.stage == "single":
            return nn.ModuleList([self.net.single, self.net.pose, self.intrinsics_head])
        return self.taught

    def before_step(self) -> None:
        """The second stage begins with the first one's weights, where that is wanted."""
        if self.stage == "multi":
            self.net.matches.fill_(True)
        if self.stage == "multi" and self.steps == 0 and self.config.warm_start:
            self.net.encoder.load_state_dict(self.net.single.depth.encoder.state_dict())
            self.net.decoder.load_state_dict(self.net.single.depth.decoder.state_dict())

    def train(self, mode: bool = True) -> ProDepth:
        """Frozen networks stay in evaluation mode."""
        super().train(mode)
        if mode and self.stage == "multi" and self.config.freeze_teacher:
            self.net.single.eval()
            self.net.pose.eval()
        return self

    def enter_stage(self, stage: str) -> None:
        """Switch what is trained."""
        super().enter_stage(stage)
        self.train(self.training)

    # ---- training --------------------------------------------------------------------------------------------
    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Of the stage."""
        frames = self.frames(batch)
        return self.single_terms(frames) if self.stage == "single" else self.multi_terms(frames)

    def single_terms(self, frames: Frames) -> dict[str, Tensor]:
        """Monodepth2's terms, and the likelihood of the errors."""
        c = self.config
        transforms, _, _, coarsest = self.motion(frames.seen)
        camera = self.camera(frames.shares, coarsest, frames.size)
        disparities, sigma = self.net.single(frames.seen[1])
        warped = self.all_warped(disparities, frames.sources, camera, transforms)
        terms = monodepth2_terms(
            disparities, warped, frames.target, frames.sources, smoothness=c.smoothness, automask=c.automask,
            average=c.average, alpha=c.ssim, noise=self.noise(frames),
        )  # fmt: skip
        error = reprojection_errors(warped[0], frames.target, alpha=c.ssim).amin(1, keepdim=True)
        likelihood = heteroscedastic(error.detach() if c.uncertainty == "apart" else error, sigma)
        self._follow(self.depth_of(disparities[0]))
        return terms | {"loss": terms["loss"] + likelihood, "likelihood": likelihood}

    def multi_terms(self, frames: Frames) -> dict[str, Tensor]:
        """The multi-frame terms; motion and single frame without gradient."""
        c, net = self.config, self.net
        with torch.set_grad_enabled(torch.is_grad_enabled() and not c.freeze_teacher):
            transforms, _, _, coarsest = self.motion(frames.seen)
            camera = self.camera(frames.shares, coarsest, frames.size).detach()
        transforms = transforms.detach()
        single, sigma = net.teacher(frames.seen[1])
        self._follow(self.depth_of(single))
        rows = (0, 2) if c.future else (0,)
        lookup, moves = frames.seen[list(rows)].clone(), transforms[: len(rows)].clone()
        disturbed = self._disturb(frames, lookup, moves)
        shares = torch.stack(
            (
                camera[:, 0, 0] / frames.size[1], camera[:, 1, 1] / frames.size[0],
                camera[:, 0, 2] / frames.size[1], camera[:, 1, 2] / frames.size[0],
            ), 1,
        )  # fmt: skip
        found = net.match(frames.seen[1], lookup, moves, shares, single, sigma)
        warped = self.all_warped(found.disparities, frames.sources, camera, transforms)
        aux = self.warped(self.depth_of(found.aux), frames.sources, camera, transforms)
        scaled, known = (disparity_to_depth(d, c.min_depth, c.max_depth)[0] for d in (found.disparities[0], single))
        terms = prodepth_terms(
            found.disparities, warped, aux, frames.target, scaled, known, net.weight(found.aux, single), disturbed,
            smoothness=c.smoothness, consistency=c.consistency, cv_weight=c.cv_weight, threshold=c.threshold,
            reweighting=c.reweighting, alpha=c.ssim,
        )  # fmt: skip
        return terms

    def _follow(self, depth: Tensor) -> None:
        """The range of the bins follows the single frames' depth while training."""
        if self.training and not self.config.nearest:
            low, high = track_depth_range(self.net.low, self.net.high, depth)
            self.net.low.copy_(low)
            self.net.high.copy_(high)

    def _disturb(self, frames: Frames, lookup: Tensor, moves: Tensor) -> Tensor:
        """Matching augmentation, in place; returns a (N,), 1 for the samples that it hit."""
        n = len(frames.target)
        drawn = frames.rng.random(n) if self.training else [1.0] * n
        hit = torch.zeros(n, device=lookup.device)
        for k, u in enumerate(drawn):
            if u < self.config.static_camera:
                lookup[:, k] = frames.seen[1, k]
            elif u < self.config.static_camera + self.config.no_match:
                moves[:, k] = 0
            else:
                continue
            hit[k] = 1
        return hit

    # ---- what one keeps --------------------------------------------------------------------------------------
    def disparity(self, frames: Tensor, intrinsics: Tensor) -> Tensor:
        """1 / depth (N, 1, H, W) of the last of frames (N, 2, C, H, W); until the second stage of it alone."""
        if not bool(self.net.matches):
            return super().disparity(frames, intrinsics)
        before, target = frames[:, 0], frames[:, -1]
        if self.config.test_mode == "static_camera":
            before = target
        unknown = ~torch.isfinite(intrinsics).all(1, keepdim=True)
        if bool(unknown.any()):
            intrinsics = torch.where(unknown, self.learnt_camera(before, target), torch.nan_to_num(intrinsics))
        alone = self.config.test_mode == "zero_cost_volume"
        found: Tensor = self.net(torch.cat((before, target), 1), intrinsics, alone=alone)
        return found

    def deliverable(self) -> nn.Module:
        """Two frames (N, 2 C, H, W) in [0, 1], the one before and the frame, to 1 / depth (N, 1, H, W)."""
        return self.net

    def deliverable_spec(self) -> dict[str, Any]:
        """How to build the network again; the camera that an export takes for granted is the buffer ``shares``."""
        own = {"channels": 2 * self.channels, "bins": self.config.bins, "modulation": self.config.modulation}
        known = {"input": "previous frame and frame in [0, 1], channels one after the other"}
        return super().deliverable_spec() | own | known | {"intrinsics": self.net.shares.tolist()}

    def order(self, source: Any, role: str) -> None:
        """Shuffled; the first camera that is known goes into the network, for its export."""
        known = source.values.get("intrinsics")
        if known is not None and len(known) and bool((known[0] == known[0]).all()):
            self.net.shares.copy_(torch.from_numpy(known[0]))
