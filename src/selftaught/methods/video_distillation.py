"""Several video pretexts in one network: a student matches the features of frozen teachers of different tasks (Kumar et
al., CVPR workshops 2025, arXiv 2504.06153).

    L = mean over teachers k of T^2 KL(softmax(t_k / T) || softmax(W_k s / T))      (or the distance of unit vectors)

The paper leaves the formula open: this is our reconstruction. The teachers are finished runs; or they are trained here,
each in a stage of its own, and the student after them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from selftaught import networks, objectives
from selftaught._reading import json_of
from selftaught.catalog.rules import Form, Natural, Positive
from selftaught.engine.method import LearningRateScaling, Stage
from selftaught.errors import UserError
from selftaught.methods import cvrl, prp, rspnet, tdl, vcop, video_rotnet
from selftaught.methods._clips import ClipConfig, ClipMethod
from selftaught.views import Recipe, TemporalCrop, View

__all__ = ["VideoDistillation"]

_MODULES: tuple[Any, ...] = (cvrl, prp, rspnet, tdl, vcop, video_rotnet)
_CLASSES: tuple[Any, ...] = (cvrl.CVRL, prp.PRP, rspnet.RSPNet, tdl.TDL, vcop.VCOP, video_rotnet.VideoRotNet)
PRETEXTS: dict[str, tuple[type[ClipMethod], dict[str, dict[str, Any]]]] = {
    kind.slug: (kind, module.PRESETS) for kind, module in zip(_CLASSES, _MODULES, strict=True)
}
_STAGES = ("first-teacher", "second-teacher", "student")
_SHARED = ("frames", "stride", "image_size", "flip", "crop")
_OF_THE_RUN = ("epochs", "steps", "batch_size")


@dataclass
class Config(ClipConfig):
    """Options of the distillation; the defaults are ours, for the paper names none."""

    encoder: str = "r2plus1d-18"
    image_size: int = 112
    stride: int = 1
    augment: Literal["paper", "small", "crop", "none"] = "crop"
    teachers: str = ""
    """Folders of finished runs on clips, joined by commas; empty trains two teachers first."""
    pretexts: Annotated[str, Form(r"[a-z-]+\+[a-z-]+", "two pretexts such as rspnet+video-rotnet")] = (
        "rspnet+video-rotnet"
    )
    """The two pretexts that teachers are trained with where no runs are named: cvrl, video-rotnet, vcop, prp, tdl,
    rspnet."""
    teacher_encoder: str = ""
    """Network of these teachers; empty takes the student's."""
    teacher_preset: Literal["benchmark", "laptop"] = "benchmark"
    """Preset that these teachers' own options come from."""
    teacher_steps: Natural = 0
    """Steps of each of these teachers; 0: as many as of the student."""
    kind: Literal["kl", "cross_entropy", "mse"] = "kl"
    """What compares the student with a teacher: softmaxed features (kl, cross_entropy) or unit vectors (mse)."""
    temperature: Positive = 4.0
    """Temperature T of these softmaxes."""
    lr: float = 1e-3
    lr_scaling: LearningRateScaling = "none"


PRESETS = {
    "benchmark": {"epochs": 200, "batch_size": 32},
    "laptop": {
        "encoder": "cnn-small-video", "frames": 8, "stride": 2, "image_size": 32, "flip": 0.0, "crop": 0.5,
        "teacher_preset": "laptop", "optimizer": "adam", "lr": 2e-3, "weight_decay": 0.0, "steps": 250,
        "batch_size": 16,
    },
}  # fmt: skip


class VideoDistillation(ClipMethod):
    """A student of several pretexts on clips of one or more channels."""

    slug = "video-distillation"
    config_class = Config
    config: Config
    stages = ("first-teacher", "second-teacher", "student")

    def build(self) -> None:
        """The student, its teachers, and a projection of its features for each."""
        super().build()
        c = self.config
        self.pretexts = nn.ModuleList()
        self.missing = ""
        if c.teachers:
            self.stages = ("student",)  # type: ignore[assignment]
            self.stage = self.stages[0]
            found = [self._finished(Path(name.strip())) for name in c.teachers.split(",") if name.strip()]
            self.teachers = nn.ModuleList(one for one in found if one is not None)
        else:
            self.pretexts.extend(self._pretext(name) for name in c.pretexts.split("+"))
            self.teachers = nn.ModuleList(one.encoder for one in self.pretexts)  # type: ignore[misc]
        dim = int(self.encoder.dim)
        self.projections = nn.ModuleList(nn.Linear(dim, int(one.dim)) for one in self.teachers)  # type: ignore[arg-type]

    def _pretext(self, slug: str) -> ClipMethod:
        """A pretext with its preset's own options, on this method's clips."""
        c = self.config
        if slug not in PRETEXTS:
            raise UserError(f"pretexts={c.pretexts}: no pretext {slug!r}; choose two of {', '.join(PRETEXTS)}")
        kind, presets = PRETEXTS[slug]
        own = {key: value for key, value in presets[c.teacher_preset].items() if key not in _OF_THE_RUN}
        own |= {key: getattr(c, key) for key in _SHARED} | {"encoder": c.teacher_encoder or c.encoder}
        return kind(channels=self.channels, samples=self.samples, **own)

    def _finished(self, path: Path) -> nn.Module | None:
        """The encoder of a finished run; None where it is gone, which only matters while the student learns."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        card, weights = path / "encoder.json", path / "encoder.safetensors"
        if not card.exists() or not weights.exists():
            self.missing = f"teachers={path}: no finished run there"
            return None
        try:
            build, learnt = json_of(card)["build"], load_file(weights)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise UserError(f"teachers={path}: damaged ({error}); train it again, or name another run") from None
        encoder = networks.build(build)
        if getattr(encoder, "spec", {}).get("channels") != self.channels:
            raise UserError(f"teachers={path}: it sees {encoder.spec.get('channels')} channels, not {self.channels}")
        encoder.load_state_dict(learnt)
        return encoder.requires_grad_(False)

    # ---- stages ----------------------------------------------------------------------------------------------
    @property
    def _learner(self) -> Any:
        """The pretext that is being trained; None while the student learns."""
        place = _STAGES.index(self.stage)
        return self.pretexts[place] if place < 2 else None

    def stage_plan(self, stage: str) -> Stage:
        """Teachers may have steps of their own."""
        steps = self.config.teacher_steps
        return Stage({"steps": steps} if steps and stage != "student" else {})

    def enter_stage(self, stage: str) -> None:
        """Freeze the teachers for the student."""
        super().enter_stage(stage)
        if stage == "student":
            if self.missing:
                raise UserError(self.missing)
            self.pretexts.requires_grad_(False)
            self.teachers.requires_grad_(False)

    def trained_modules(self) -> nn.Module:
        """A teacher with its heads, or the student with its projections."""
        return self._learner or nn.ModuleList([self.encoder, self.projections])

    def recipe(self) -> Recipe:
        """The pretext's views, or one clip for student and teachers."""
        if self._learner is not None:
            return self._learner.recipe()
        c = self.config
        return Recipe((View("clip", "clip", (TemporalCrop(c.frames, c.stride), *self.augmentation())),))

    # ---- training --------------------------------------------------------------------------------------------
    def before_step(self) -> None:
        """What the pretext does before a step."""
        learner = self._learner
        if learner is not None:
            learner.steps = self.steps
            learner.before_step()

    def after_step(self) -> None:
        """What the pretext does after a step."""
        if self._learner is not None:
            self._learner.after_step()

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The pretext's loss, or the student's distance to its teachers."""
        learner = self._learner
        if learner is not None:
            return learner.loss(batch)
        return self.match(batch["clip"])

    def match(self, clip: Tensor) -> dict[str, Tensor]:
        """The student's terms of clips (N, C, T, H, W); teachers see the same clips, in evaluation mode."""
        h = self.encoder(clip)
        with torch.no_grad():
            told = [teacher.eval()(clip) for teacher in self.teachers]
        said = [projection(h) for projection in self.projections]
        return objectives.pretext_distillation_terms(
            said, told, kind=self.config.kind, temperature=self.config.temperature
        )
