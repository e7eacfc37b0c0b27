"""Several sharp pictures for one blurred (Liu et al., 2022, arXiv 2208.13029): the best of K heads learns.

    L = sum over stages of w 10 / ln 10 mean_n ln( min_h mse[n, h] + 1e-8 ),        y_h = blurred + r_h

K residual heads r_k, and with --combine all their pairwise means. Stage "choose" finds, on pictures held out from the
training, the head that is best on average: that one ``apply`` gives.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from selftaught import networks, objectives
from selftaught.catalog.rules import Count, Form, Natural, NonNegative, Positive, Range, Share, Widths
from selftaught.engine.method import Optim, Stage
from selftaught.errors import UserError
from selftaught.methods._deblurring import BLURRED, DeblurConfig, DeblurMethod
from selftaught.networks.multi_output import HeadChoice, combined_count

__all__ = ["MultiOutputDeblur"]

_WIDTHS = {"nafnet": 32, "hinet": 64, "mprnet": 96, "restormer": 48}
_HELD_OUT = 10


@dataclass
class Config(DeblurConfig):
    """Options of deblurring with several outputs; the defaults are the paper's NAFNet-32."""

    lr: NonNegative = 1e-3
    weight_decay: float = 1e-3
    momentum: float = 0.9
    final_lr: float = 1e-4
    backbone: Literal["nafnet", "hinet", "mprnet", "restormer"] = "nafnet"
    """The network whose last convolution grows."""
    width: Natural = 0
    """Channels of its finest level; 0: nafnet 32, hinet 64, mprnet 96, restormer 48."""
    encoder: Widths = "1-1-1-28"
    """Blocks of NAFNet's stages on the way down."""
    middle: Count = 1
    """Blocks of its coarsest stage."""
    decoder: Widths = "1-1-1-1"
    """Blocks of its stages on the way up."""
    local: bool = True
    """NAFNet's averages see, at test, windows 1.5 times the training patch (TLSC), not the whole picture."""
    depth: Annotated[int, Range(2)] = 5
    """Levels of each of HINet's U-nets."""
    step: Natural = 48
    """By how much each coarser level of MPRNet is wider."""
    extra: Natural = 32
    """By how much MPRNet's third stage is wider."""
    cabs: Count = 8
    """Channel attention blocks in each part of MPRNet's third stage."""
    blocks: Annotated[str, Form(r"[1-9]\d*(-[1-9]\d*){3}", "four numbers such as 4-6-6-8")] = "4-6-6-8"
    """Blocks of Restormer's four levels."""
    refinement: Count = 4
    """Blocks of Restormer's refinement."""
    heads: Count = 4
    """K stored heads; 1 is the ordinary network."""
    combine: bool = True
    """All pairwise means of the heads are outputs as well, K (K + 1) / 2 in all."""
    loss: Literal["psnr", "l1", "charbonnier_edge", "mse"] = "psnr"
    """What the best head is best in: minus PSNR (NAFNet, HINet), L1 (Restormer), Charbonnier with edges (MPRNet)."""
    stage_weight: Positive = 1.0
    """Weight w of every stage of the network; 0.5 for HINet."""
    to_y: bool = False
    """Compare the luma (loss psnr, RGB)."""
    select: Literal["image", "pixel"] = "image"
    """Heads compete for whole patches; pixel is no choice of the paper."""
    soft: Annotated[float, Range(0, below=1)] = 0.0
    """Share of the loss that the heads which are not the best get, against dead heads; 0 is the paper's."""
    beta2: Annotated[float, Range(0, below=1)] = 0.9
    """Second beta of Adam."""
    gradient_clip: NonNegative = 0.01
    """Largest norm of the gradient; 0 does not clip."""
    hold: Share = 0.0
    """Share of the steps before the learning rate begins to fall."""
    progressive: Annotated[str, Form(r"|\d+x\d+x\d+(,\d+x\d+x\d+)*", "PATCHxBATCHxSTEPS,... or nothing")] = ""
    """Growing patches, a stage for each: PATCHxBATCHxSTEPS,... (Restormer); nothing: --patch throughout."""
    head: Annotated[str, Form(r"best|mean|all|\d+", "best, mean, all, or a number")] = "best"
    """What apply gives unless its --head says otherwise: the head that was best on held-out pictures, the mean, one by
    its number, or all, each in a file beside the best one's."""
    choose_steps: Count = 25
    """Batches of held-out patches that the best head is found with."""


PRESETS = {
    "gopro-nafnet32": {"steps": 200000, "batch_size": 32},
    "gopro-nafnet64": {"width": 64, "steps": 400000, "batch_size": 64},
    "gopro-hinet": {
        "backbone": "hinet", "stage_weight": 0.5, "optimizer": "adam", "beta2": 0.99, "weight_decay": 0.0, "lr": 2e-4,
        "final_lr": 5e-4, "steps": 400000, "batch_size": 64,
    },
    "gopro-mprnet": {
        "backbone": "mprnet", "loss": "charbonnier_edge", "optimizer": "adam", "beta2": 0.999, "weight_decay": 0.0,
        "lr": 2e-4, "final_lr": 5e-3, "warmup_epochs": 3.0, "gradient_clip": 0.0, "epochs": 3000, "batch_size": 16,
    },
    "gopro-restormer": {
        "backbone": "restormer", "loss": "l1", "beta2": 0.999, "weight_decay": 1e-4, "lr": 3e-4, "final_lr": 3.4e-3,
        "hold": 0.3067, "progressive": "128x64x92000,160x40x64000,192x32x48000,256x16x36000,320x8x36000,384x8x24000",
        "steps": 300000, "batch_size": 64,
    },
    "laptop": {
        "width": 12, "encoder": "1-1-2", "decoder": "1-1-1", "patch": 64, "kernel": 13, "shortest": 4.0,
        "steps": 800, "batch_size": 8,
    },
}  # fmt: skip


@dataclass
class _Held(Optim):
    """Constant for a while, then the cosine; over all stages of growing patches as over one."""

    hold: float = 0.0
    before: int = 0
    whole: int = 0

    def factor(self, step: int, total: int) -> float:
        """Factor on the learning rate at a step of the stage."""
        whole = self.whole or total
        begin = round(self.hold * whole)
        at = self.before + step
        return super().factor(max(0, at - begin), max(1, whole - begin)) if begin else super().factor(at, whole)


class MultiOutputDeblur(DeblurMethod):
    """NAFNet, HINet, MPRNet or Restormer with K heads; any number of channels."""

    slug = "multi-output-deblur"
    config_class = Config
    config: Config
    roles = ("data", "choose")
    stages = ("train", "choose")
    applied_with: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "head": {"help": "several outputs: best, mean, all (each in a file beside the best one's), or a head's number"},
    }
    all_asked: bool | None = None

    def build(self) -> None:
        """The network with its heads, and the count of which of them is how good."""
        c = self.config
        self.head = HeadChoice(self._backbone(), self._fixed_head())
        outputs = self.outputs
        if c.head.isdigit() and int(c.head) >= outputs:
            raise UserError(f"--head {c.head}: there are heads 0 to {outputs - 1}")
        if c.to_y and (self.channels != 3 or c.loss != "psnr"):
            raise UserError("--to-y compares the luma of RGB images with --loss psnr")
        grown = [f"patch-{side}" for side, _, _ in self._sizes()]
        several = outputs > 1 and c.head in ("best", "all")
        self.stages = (*(grown or ["train"]), *(["choose"] if several else []))  # type: ignore[assignment]
        self.stage = self.stages[0]
        self.register_buffer("decibels", torch.zeros(outputs, dtype=torch.float64))
        self.decibels: Tensor

    def _backbone(self) -> nn.Module:
        c = self.config
        width = c.width or _WIDTHS[c.backbone]
        common: dict[str, Any] = {"width": width, "heads": c.heads, "combine": c.combine}
        if c.backbone == "hinet":
            first = min(3, c.depth - 2)
            return networks.HINet(self.channels, depth=c.depth, normalised=(first, c.depth - 1), **common)
        if c.backbone == "mprnet":
            return networks.MPRNet(self.channels, step=c.step, extra=c.extra, blocks=c.cabs, **common)
        if c.backbone == "restormer":
            blocks = [int(count) for count in c.blocks.split("-")]
            return networks.Restormer(self.channels, blocks=blocks, refinement=c.refinement, **common)
        encoder, decoder = ([int(count) for count in text.split("-")] for text in (c.encoder, c.decoder))
        local = round(1.5 * c.patch) if c.local else 0
        sizes: dict[str, Any] = {"encoder": encoder, "middle": c.middle, "decoder": decoder, "local": local}
        return networks.NAFNet(self.channels, **sizes, **common)

    def _fixed_head(self) -> int:
        c = self.config
        return -1 if c.head == "mean" else int(c.head) if c.head.isdigit() else 0

    @property
    def outputs(self) -> int:
        """How many pictures come out for one, the means of two heads among them."""
        return combined_count(self.config.heads) if self.config.combine else self.config.heads

    @property
    def network(self) -> Any:
        """The network: blurred images to those of all heads."""
        return self.head.network

    # ---- stages ------------------------------------------------------------------------------------------------
    def _sizes(self) -> list[tuple[int, int, int]]:
        """Patch, batch and steps of each growing stage."""
        found = []
        for part in filter(None, self.config.progressive.split(",")):
            side, batch, steps = map(int, part.split("x"))
            found.append((side, batch, steps))
        return found

    def stage_plan(self, stage: str) -> Stage:
        """Growing patches bring their steps and batch; the choice reads the held-out stream."""
        if stage == "choose":
            return Stage(settings={"steps": self.config.choose_steps}, roles=("choose",))
        if stage == "train":
            return Stage(roles=("data",))
        _, batch, steps = self._sizes()[self.stages.index(stage)]
        return Stage(settings={"steps": steps, "batch_size": batch}, roles=("data",))

    def enter_stage(self, stage: str) -> None:
        """The choice counts from nothing, and sees the network as it is at test."""
        super().enter_stage(stage)
        if stage == "choose":
            self.decibels.zero_()

    def patch(self) -> int:
        """Side of the training patches of the stage."""
        sizes = self._sizes()
        known = {f"patch-{side}": side for side, _, _ in sizes}
        return known.get(self.stage, sizes[0][0] if sizes else self.config.patch)

    @classmethod
    def streams(cls, source: Any, given: dict[str, Any], opened: Callable[[Any], Any]) -> dict[str, Any]:
        """The pictures to train on, and those to choose the head on: a tenth of them, or a source of one's own."""
        if "choose" in given:
            return {"data": source, "choose": opened(given["choose"])}
        drawn = np.random.default_rng(0).permutation(len(source))
        few = max(1, len(source) // _HELD_OUT)
        if len(source) <= few:
            raise UserError(f"{source.name}: one picture can't be parted; name others with --choose SOURCE")
        return {"data": source.subset(np.sort(drawn[few:])), "choose": source.subset(np.sort(drawn[:few]))}

    # ---- learning ----------------------------------------------------------------------------------------------
    def optimisers(self) -> dict[str, Optim]:
        """One; none while the head is chosen."""
        if self.stage == "choose":
            return {}
        c = self.config
        (main,) = super().optimisers().values()
        options = {name: getattr(main, name) for name in ("optimizer", "lr", "warmup", "final_lr", "schedule")}
        options |= {"milestones": main.milestones, "gamma": main.gamma, "momentum": c.momentum}
        sizes = self._sizes()
        before = sum(steps for _, _, steps in sizes[: self.stages.index(self.stage)]) if sizes else 0
        whole = sum(steps for _, _, steps in sizes)
        return {
            "main": _Held(
                main.parameters, **options, betas=(c.momentum, c.beta2), clip=c.gradient_clip or None,
                hold=c.hold, before=before, whole=whole,
            )
        }  # fmt: skip

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The loss of all stages, and the PSNR and winner of the last one's heads."""
        c = self.config
        blurred, sharp = self.pair(batch.get("data", batch))
        outputs = self.network.stages(blurred)
        with torch.no_grad():
            errors = objectives.head_distances(outputs[-1], sharp)
        loss = objectives.multi_output_deblur(
            outputs, sharp, loss=c.loss, weight=c.stage_weight, to_y=c.to_y, select=c.select, soft=c.soft,
            last=errors if c.loss in ("psnr", "mse") and not c.to_y else None,
        )  # fmt: skip
        best, wins = -10 * (errors.min(1).values + 1e-8).log10().mean(), objectives.win_rates(errors)
        return {"loss": loss, "best psnr": best} | {f"wins {h}": share for h, share in enumerate(wins)}

    def step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """A step of learning, or a look at how good each head is on held-out patches."""
        return self._look(batch) if self.stage == "choose" else super().step(batch)

    @torch.no_grad()
    def _look(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        was = self.head.training
        self.head.eval()
        blurred, sharp = self.pair(batch.get("choose", batch))
        made = (self.network(blurred).clamp(0, 1) * 255).round() / 255
        errors = objectives.head_distances(made, (sharp * 255).round() / 255)
        self.decibels += -10 * (errors + 1e-10).log10().mean(0).double()
        self.head.choice.fill_(int(self.decibels.argmax()))
        self.head.train(was)
        return {"loss": errors.min(1).values.mean(), "head": self.head.choice.float()}

    # ---- what one keeps ----------------------------------------------------------------------------------------
    def inputs(self, batch: dict[str, Any]) -> Tensor:
        """Blurred images."""
        return batch[BLURRED] if BLURRED in batch else super().inputs(batch)

    def predict(self, batch: dict[str, Any]) -> Tensor:
        """Sharp images (N, C, H, W) in [0, 1] of the chosen head."""
        return self.head(self.inputs(batch))

    def candidates(self, image: Tensor) -> Tensor:
        """The images of all heads, (N, heads, C, H, W) in [0, 1], of blurred ones (N, C, H, W)."""
        return self.network(image).clamp(0, 1)

    @property
    def chosen(self) -> int | None:
        """Number of the head that was chosen on held-out pictures or by its number; None for the mean."""
        choice = int(self.head.choice)
        return choice if choice >= 0 else None

    @property
    def gives_all(self) -> bool:
        """Whether the pictures of all heads are written."""
        return self.config.head == "all" if self.all_asked is None else self.all_asked

    @contextlib.contextmanager
    def applied_as(self, options: Mapping[str, Any], own: bool) -> Iterator[None]:
        """The head that ``apply --head`` asks for in place of the run's, as long as the context lasts.

        Raises:
            UserError: no such head; the best one of a run that chose none.
        """
        asked, choice = str(options.get("head") or ""), int(self.head.choice)
        if asked in ("best", "all") and self.outputs > 1 and self.config.head not in ("best", "all"):
            raise UserError(f"--head {asked}: the run was trained with --head {self.config.head} and chose no best one")
        if asked.isdigit() and int(asked) >= self.outputs:
            raise UserError(f"--head {asked}: there are heads 0 to {self.outputs - 1}")
        if asked and not asked.isdigit() and asked not in ("best", "mean", "all"):
            raise UserError(f"--head {asked}: best, mean, all, or a number from 0 to {self.outputs - 1}")
        try:
            self.all_asked = asked == "all" if asked else None
            if asked.isdigit() or asked == "mean":
                self.head.choice.fill_(int(asked) if asked.isdigit() else -1)
            yield
        finally:
            self.all_asked = None
            self.head.choice.fill_(choice)

    def deliverable(self) -> nn.Module:
        """Blurred images in [0, 1] to sharp ones."""
        return self.head

    def deliverable_spec(self) -> dict[str, Any]:
        """The network's sizes."""
        c = self.config
        every: dict[str, dict[str, Any]] = {
            "nafnet": {"encoder": c.encoder, "middle": c.middle, "decoder": c.decoder},
            "hinet": {"depth": c.depth},
            "mprnet": {"step": c.step, "extra": c.extra, "cabs": c.cabs},
            "restormer": {"blocks": c.blocks, "refinement": c.refinement},
        }
        sizes: dict[str, Any] = {"width": c.width or _WIDTHS[c.backbone], "heads": c.heads, "combine": c.combine}
        return {"name": c.backbone, "channels": self.channels} | sizes | every[c.backbone]
