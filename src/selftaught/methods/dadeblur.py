"""DADeblur: a video deblurrer that adapts to the videos it is given (He et al., ECCV 2024, arXiv 2407.09059).

Trained on sharp videos, which are blurred by averaging frames. Three networks learn, a stage each: how far each pixel
moved during an exposure (m), a deblurrer of five frames, and a blurring model told direction and m (ID-Blau).

At test, from blurred videos alone (``apply --adapt``): where m is smallest a frame counts as sharp. It is blurred there
as its neighbours are,

    m_t = M_t / max M_t * mean( M_{t-2}, M_{t-1}, M_{t+1}, M_{t+2} ) + 10 pixels,   along  f_{t -> t+1} - f_{t -> t-1},

and the deblurrer is fine-tuned to undo that, between the neighbours as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from selftaught import networks, objectives
from selftaught.catalog.rules import Count, Natural, NonNegative, Positive, Range, Share, Widths
from selftaught.data import Source
from selftaught.data.exposures import Exposures
from selftaught.engine.method import LearningRateScaling, MethodConfig, Optim, Optimizer, Schedule, Stage
from selftaught.errors import SampleError, UserError
from selftaught.methods._dadeblur_adapting import Adapting
from selftaught.methods._deblurring import BLURRED, SHARP
from selftaught.networks.classical_flow import FlowName, optical_flow
from selftaught.networks.reblurring import path_blur
from selftaught.views import Dihedral, HorizontalFlip, Op, RandomCrop, Recipe, TemporalCrop, View

__all__ = ["DADeblur"]

_PAST = 2
_WINDOW = 2 * _PAST + 1


@dataclass
class Config(MethodConfig):
    """DADeblur's options; the defaults are the paper's."""

    optimizer: Optimizer = "adam"
    lr: float = 5e-4
    lr_scaling: LearningRateScaling = "none"
    weight_decay: float = 0.0
    schedule: Schedule = "cosine"
    network: Literal["estrnn", "mmp-rnn", "frame-stack"] = "estrnn"
    """The deblurrer; frame-stack is a plain CNN that a laptop can train."""
    width: Count = 16
    """Its channels at full size."""
    blocks: Count = 15
    """Its residual dense blocks; layers of the frame-stack."""
    exposure: Count = 11
    """Sharp frames that are averaged to a blurred one, in training and evaluation on sharp videos."""
    step: Natural = 0
    """Sharp frames from one exposure to the next; 0: as many as an exposure has."""
    gamma: Positive = 1.0
    """Of the camera's response: values to this power are averaged."""
    patch: Count = 256
    """Side of the training patches."""
    turn: bool = True
    """Whether patches are also turned by quarters, not only mirrored."""
    magnitude_encoder: Literal["resnet50", "resnet18", "small"] = "resnet50"
    """Encoder of the magnitude estimator."""
    magnitude_widths: Widths = "32-64-64-64-64"
    """Channels of its decoder, the finest level first."""
    magnitude_fusion: Count = 64
    """Channels of each of its levels while they are fused."""
    magnitude_blocks: Count = 5
    """Residual blocks of each level of its decoder."""
    magnitude_steps: Natural = 0
    """Steps of stage magnitude; 0: those of the run."""
    magnitude_lr: Positive = 1e-3
    """Its learning rate, which falls to a hundredth."""
    scale_invariant: NonNegative = 0.0
    """Weight of a scale-invariant term in its loss; the paper leaves open which."""
    meta: bool = False
    """Train the deblurrer so that one step of blurring again helps it (meta-transfer, Liu et al., 2022), to the first
    order: the baseline that goes with adaptation reblur."""
    meta_lr: Positive = 1e-2
    """Size of that step."""
    longest: Positive = 205.0
    """Pixels of the longest blur, by which magnitudes are divided."""
    blur_model: Literal["diffusion", "linear"] = "diffusion"
    """What blurs: ID-Blau, or the mean along a straight path, which needs no training."""
    blur_base: Count = 64
    """Channels of the noise predictor at full size."""
    blur_multipliers: Widths = "1-2-3"
    """Multiples of them at its levels."""
    blur_steps: Natural = 0
    """Steps of stage blur; 0: those of the run."""
    blur_lr: Positive = 1e-4
    """Its learning rate, constant."""
    blur_patch: Count = 128
    """Side of its patches."""
    diffusion_steps: Annotated[int, Range(2)] = 2000
    """T."""
    sampler: Literal["ddim", "ddpm"] = "ddim"
    """ddpm takes all T steps."""
    sampling_steps: Count = 20
    """Steps of ddim."""
    flow: FlowName = "dis"
    """Optical flow: OpenCV's dis or farneback, or RAFT of torchvision (the paper), whose weights are downloaded."""
    adaptation: Literal["pairs", "reblur", "none"] = "pairs"
    """pairs: the paper; reblur: what is restored must give the input when it is blurred again; none."""
    per: Literal["set", "video"] = "set"
    """Adapt once to all videos together, or to each alone."""
    ratio: Share = 0.2
    """Sharp places wanted for each frame of a video."""
    min_box: Count = 256
    """Least side of a sharp place; scaled down for frames of fewer than 480 lines."""
    orientation: Literal["flow", "random", "across"] = "flow"
    """Direction of the new blur; across: at right angles to the flow, to see what the wrong one does."""
    magnitude: Literal["product", "own", "neighbours", "random"] = "product"
    """Strength of the new blur."""
    magnitude_offset: NonNegative = 10.0
    """Pixels that are added to it."""
    adapt_epochs: Natural = 10
    """Passes over the pairs of a set; 0 adapts nothing."""
    adapt_lr: Positive = 5e-4
    """Learning rate of the adaptation at its beginning; too large a one forgets."""
    adapt_final_lr: NonNegative = 1e-7
    """And at its end."""
    adapt_batch: Count = 8
    """Pairs of a step."""
    adapt_patch: Count = 256
    """Side of its patches."""
    adapt_clip: Positive = 20.0
    """Largest norm of its gradients."""
    adapt_seed: Natural = 0
    """Of its draws."""


PRESETS = {
    "gopro": {"epochs": 500, "batch_size": 8},
    "gopro-mmp-rnn": {"network": "mmp-rnn", "blocks": 10, "epochs": 500, "batch_size": 8},
    "meta-transfer": {
        "meta": True, "adaptation": "reblur", "blur_model": "linear", "epochs": 500, "batch_size": 8,
    },
    "raft": {"flow": "raft", "epochs": 500, "batch_size": 8},
    "laptop": {
        "network": "frame-stack", "width": 24, "blocks": 4, "exposure": 3, "patch": 48, "turn": True, "lr": 1e-3,
        "magnitude_encoder": "small", "magnitude_widths": "8-16-16-16-16", "magnitude_fusion": 16,
        "magnitude_blocks": 1, "magnitude_steps": 100, "longest": 40.0, "blur_model": "linear",
        "magnitude_offset": 3.0, "adapt_patch": 64, "adapt_epochs": 20, "steps": 300, "batch_size": 8,
        "precision": "32",
    },
}  # fmt: skip


class DADeblur(Adapting):
    """DADeblur on videos of any number of channels; learns from sharp ones, or from pairs of fields blurred, sharp."""

    slug = "dadeblur"
    config_class = Config
    config: Config
    modalities = ("clip",)
    output = "clip"
    pixels = "float32"
    compares = False
    default_data = "video?window=36&stride=12"
    stages: tuple[str, ...] = ("magnitude", "deblur", "blur")
    pair_fields: ClassVar[tuple[str, str]] = (BLURRED, SHARP)

    unscored: ClassVar[int] = _PAST

    fields: Mapping[str, Any] = {}

    # ---- networks --------------------------------------------------------------------------------------------
    def build(self) -> None:
        """The deblurrer, the magnitude estimator and, unless a path blurs, the noise predictor."""
        c = self.config
        self.deblurrer = self._deblurrer()
        self.magnitude = networks.BlurMagnitude(
            self.channels, c.magnitude_encoder, each=c.magnitude_fusion, blocks=c.magnitude_blocks,
            widths=_numbers(c.magnitude_widths, 5),
        )  # fmt: skip
        self.noise: networks.BlurNoise | None = None
        self.diffusion: networks.BlurDiffusion | None = None
        if c.blur_model == "linear":
            self.stages = ("magnitude", "deblur")
        else:
            self.noise = networks.BlurNoise(self.channels, c.blur_base, _numbers(c.blur_multipliers))
            self.diffusion = networks.BlurDiffusion(self.noise, c.diffusion_steps)
        self.stage = self.stages[0]
        self.adapted: list[str] = []

    def _deblurrer(self) -> Any:
        c = self.config
        if c.network == "frame-stack":
            return networks.FrameStack(self.channels, c.width, c.blocks)
        if c.network == "mmp-rnn":
            return networks.MMPRNN(self.channels, c.width, c.blocks)
        return networks.ESTRNN(self.channels, c.width, c.blocks)

    # ---- samples ---------------------------------------------------------------------------------------------
    @property
    def apart(self) -> int:
        """Sharp frames from one exposure to the next."""
        return self.config.step or self.config.exposure

    @classmethod
    def arranged(cls, sources: dict[str, Any], config: Any) -> dict[str, Any]:
        """The clips that are long enough for a window of five blurred frames.

        Raises:
            UserError: none is.
        """
        return {role: cls._long_enough(source, config) for role, source in sources.items()}

    @classmethod
    def _long_enough(cls, source: Source, config: Any) -> Source:
        paired = {BLURRED, SHARP} <= source.fields.keys()
        least = _WINDOW if paired else (_WINDOW - 1) * (config.step or config.exposure) + config.exposure
        kept = []
        for i in range(len(source)):
            try:
                if source.frames(i) >= least:
                    kept.append(i)
            except SampleError:
                kept.append(i)  # reading it tells what is wrong
        if not kept:
            raise UserError(f"{source.name}: no clip has the {least} frames of five exposures; take --exposure smaller")
        return source if len(kept) == len(source) else source.subset(kept)

    def order(self, source: Any, role: str) -> Any:
        """Shuffled; which fields the data bring is noted for :meth:`recipe`."""
        self.fields = source.fields
        return None

    @property
    def paired(self) -> bool:
        """Whether the data bring blurred clips, so that none are made."""
        return {BLURRED, SHARP} <= self.fields.keys()

    def recipe(self) -> Recipe:
        """A stretch of frames, one patch of all of them; mirrored, and turned except where the deblurrer must not."""
        c = self.config
        turn = c.turn or self.stage != "deblur"
        side = min(c.patch, c.blur_patch) if self.stage == "blur" else c.patch
        ops: tuple[Op, ...] = (RandomCrop(side), Dihedral() if turn else HorizontalFlip())
        if self.paired:
            cut = (TemporalCrop(_WINDOW), *ops)
            return Recipe((View(BLURRED, BLURRED, cut, space="pair"), View(SHARP, SHARP, cut, space="pair")))
        frames = (_WINDOW - 1) * self.apart + c.exposure
        return Recipe((View("frames", "clip", (TemporalCrop(frames), *ops)),))

    def window(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """Blurred frames (N, C, 5, H, W), the sharp middle one (N, C, H, W), and the sharp frames of its exposure.

        Of given pairs the exposure is taken to last from half-way to the frame before to half-way to the one after, so
        that the sharp frames around the middle one stand for it.
        """
        c = self.config
        if self.paired:
            sharp = batch[SHARP]
            return batch[BLURRED], sharp[:, :, _PAST], sharp[:, :, _PAST - 1 : _PAST + 2]
        frames = batch["frames"]
        blurred = objectives.averaged_exposure(frames, c.exposure, self.apart, gamma=c.gamma)
        first = _PAST * self.apart
        return blurred, frames[:, :, first + c.exposure // 2], frames[:, :, first : first + c.exposure]

    def motion(self, exposure: Tensor) -> Tensor:
        """The flow of an exposure (N, 2, H, W) in pixels, out of its sharp frames (N, C, K, H, W)."""
        n, _, count, height, width = exposure.shape
        if count < 2:
            return exposure.new_zeros(n, 2, height, width)
        early, late = (part.transpose(1, 2).flatten(0, 1) for part in (exposure[:, :, :-1], exposure[:, :, 1:]))
        ahead = optical_flow(early, late, method=self.config.flow)
        back = optical_flow(late, early, method=self.config.flow)
        flow = objectives.exposure_flow(ahead.unflatten(0, (n, -1)), back.unflatten(0, (n, -1)))
        return flow / 2 if self.paired else flow

    # ---- learning --------------------------------------------------------------------------------------------
    def stage_plan(self, stage: str) -> Stage:
        """The estimator and the blurring model may have steps of their own; the latter clips its gradients."""
        steps = {"magnitude": self.config.magnitude_steps, "blur": self.config.blur_steps}.get(stage, 0)
        settings: dict[str, Any] = {"steps": steps} if steps else {}
        return Stage(settings | ({"clip": 1.0} if stage == "blur" else {}))

    def trained_modules(self) -> nn.Module:
        """What the stage trains."""
        if self.stage == "magnitude":
            prior = getattr(self.deblurrer, "prior", None)
            return self.magnitude if prior is None else nn.ModuleList([self.magnitude, prior])
        if self.stage == "blur":
            assert self.noise is not None
            return self.noise
        return self.deblurrer

    def optimisers(self) -> dict[str, Optim]:
        """Adam, with each stage's own rate and schedule."""
        c = self.config
        if self.stage == "magnitude":
            lr = c.magnitude_lr
            return {"main": Optim(self.parameter_groups(lr), lr=lr, schedule="cosine", final_lr=lr / 100)}
        if self.stage == "blur":
            return {"main": Optim(self.parameter_groups(c.blur_lr), lr=c.blur_lr)}
        prior = getattr(self.deblurrer, "prior", None)
        if prior is not None:
            prior.requires_grad_(False)
        return super().optimisers()

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The stage's loss."""
        c = self.config
        blurred, sharp, exposure = self.window(batch)
        middle = blurred[:, :, _PAST]
        if self.stage == "deblur":
            made = self.restore_after_a_step(blurred, self.motion(exposure)) if c.meta else self.restore(blurred)
            return {"loss": objectives.dadeblur(made, sharp - 0.5, bound=None)}
        flow = self.motion(exposure)
        if self.stage == "magnitude":
            share = objectives.magnitude_share(flow, longest=c.longest)
            found = objectives.blur_magnitude(self.magnitude(middle), share, scale_invariant=c.scale_invariant)
            terms = {"loss": found, "magnitude": found}
            prior = getattr(self.deblurrer, "prior", None)
            if prior is not None:
                terms["prior"] = objectives.blur_magnitude(prior(middle), share.clamp(max=1))
                terms["loss"] = found + terms["prior"]
            return terms
        assert self.diffusion is not None
        direction = objectives.blur_orientation(2 * flow, torch.zeros_like(flow))
        condition = objectives.blur_condition(direction, flow.norm(dim=1), longest=c.longest)
        noise = torch.randn_like(middle)
        t = torch.randint(0, c.diffusion_steps, (len(middle),), device=middle.device)
        noised = self.diffusion.noised(middle - 0.5, t, noise)
        return {"loss": objectives.blur_noise(self.diffusion.predicted(noised, sharp - 0.5, condition, t), noise)}

    def restore(self, window: Tensor) -> Tensor:
        """Windows (N, C, 5, H, W) in [0, 1] to middle frames (N, C, H, W), shifted to [-0.5, 0.5] and not clipped."""
        made: Tensor = self.deblurrer(window.transpose(1, 2) - 0.5)[:, 0]
        return made

    def restore_after_a_step(self, window: Tensor, flow: Tensor) -> Tensor:
        """As `restore`, after one step on blurring the result again by the flow (N, 2, H, W) of its exposure.

        The step's gradient counts as a constant.
        """
        strength = flow.norm(dim=1, keepdim=True)
        condition = torch.cat((objectives.blur_orientation(2 * flow, torch.zeros_like(flow)), strength), 1)
        again = path_blur(self.restore(window), condition)
        names = [name for name, p in self.deblurrer.named_parameters() if p.requires_grad]
        held = dict(self.deblurrer.named_parameters())
        error = objectives.dadeblur(again, window[:, :, _PAST] - 0.5, bound=None)
        slopes = torch.autograd.grad(error, [held[name] for name in names])
        moved = {name: held[name] - self.config.meta_lr * slope for name, slope in zip(names, slopes, strict=True)}
        made: Tensor = functional_call(self.deblurrer, moved, (window.transpose(1, 2) - 0.5,))[:, 0]
        return made

    # ---- what one keeps --------------------------------------------------------------------------------------
    def predict(self, batch: dict[str, Any]) -> Tensor:
        """Restored clips (N, C, T, H, W) in [0, 1] from blurred ones."""
        return self.deliverable()(batch[BLURRED] if BLURRED in batch else batch["clip"])

    def deliverable(self) -> nn.Module:
        """Blurred clips in [0, 1] to sharp ones; the networks of the adaptation come along."""
        return networks.VideoDeblurrer(self.deblurrer, self.magnitude, self.noise)

    def deliverable_spec(self) -> dict[str, Any]:
        """The networks' sizes."""
        c = self.config
        return {
            "name": f"video deblurrer {c.network}", "channels": self.channels, "width": c.width, "blocks": c.blocks,
            "input": "clip in [0, 1]",
        }  # fmt: skip

    # ---- judging ---------------------------------------------------------------------------------------------
    def to_judge(self, source: Source) -> Source:
        """Pairs of clips: those that the data bring, or sharp ones blurred by averaging."""
        if {BLURRED, SHARP} <= source.fields.keys():
            return source
        return Exposures(source, exposure=self.config.exposure, step=self.apart, gamma=self.config.gamma)


def _numbers(text: str, count: int = 0) -> list[int]:
    found = [int(part) for part in text.split("-")]
    if count and len(found) != count:
        raise UserError(f"--magnitude-widths {text}: {count} widths, such as 32-64-64-64-64")
    return found
