"""NP-Edit: an editor that follows instructions, learnt without one edited picture (ICLR 2026, arXiv 2510.14978).

1. teacher: a flow model learns to make pictures of captions      (a small one; a pretrained one skips this)
2. judge:   two small judges learn to answer questions, each on its own half of the pictures; the second is held out
3. warm-up: the editor G, begun as the teacher, learns to copy its reference: mean |G(y_t, t, c_y, y) - (eps - y)|^2
4. edit:    several steps of the fake model A on what G makes:  mean |A(x_t, t, c_x) - (e - x_0)|^2,  then one of G:
            L = lambda_vlm L_vlm(x_0, y, questions) + lambda_dmd L_dmd(x_0, c_x),   x_0 from two unrolled steps

Baselines in the same code: copy, supervised pairs, the policy gradient on the same judge, either loss alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from selftaught import objectives, views
from selftaught.catalog.rules import Count, Form, Natural, NonNegative, Positive, Range, Share
from selftaught.data.editing import EDITED, INSTRUCTION, TARGET, edits
from selftaught.engine.method import LearningRateScaling, MethodConfig, Optim, Optimizer, Schedule, Stage
from selftaught.errors import UserError
from selftaught.methods._editor import Editor, copy_weights, times_of
from selftaught.methods._flow_editor import CONTEXT, FlowEditor
from selftaught.methods._judging import Judges
from selftaught.networks.flow import add_lora, flow_network
from selftaught.networks.flow_pipeline import pipeline_flow
from selftaught.networks.frozen import Frozen
from selftaught.views import Pipeline, Recipe, View

__all__ = ["NPEdit"]

Times = Annotated[str, Form(r"[0-9.]+(,[0-9.]+)*", "times such as 0.25,0.5,0.75")]


@dataclass
class Config(MethodConfig):
    """NP-Edit's options; loss weights, rates and numbers of steps are the paper's, the networks the toolkit's own."""

    base: Annotated[str, Form(r"unet|dit|diffusers:.+", "unet, dit, or diffusers:NAME")] = "dit"
    """Text-to-image model: a small one that learns first, or a pretrained one of diffusers (extra generate)."""
    image_size: Count = 32
    """Side of the pictures in pixels."""
    flow_width: Count = 96
    """Width of the small model."""
    flow_patch: Count = 4
    """Pixels along each side that the small model takes together."""
    judge: Annotated[str, Form(r"(small|hf:[^+]+)(\+(small|hf:[^+]+))*", "small, hf:NAME, or several with +")] = "small"
    """Whose answers are learnt from: a small judge that learns first, vision-language models, or several together."""
    judge_width: Count = 32
    """Width of the small judges."""
    judge_form: Literal["binary", "vocabulary"] = "binary"
    """Loss on the logits of yes and no alone, as in the paper, or over the whole vocabulary (which does worse)."""
    question_set: Literal["both", "edit", "identity"] = "both"
    """Questions: whether the edit was carried out, whether all else stayed, or both."""
    baseline: Literal["none", "copy", "supervised", "policy"] = "none"
    """A rival in its place: copying; supervised training on the data's own pairs; the policy gradient on the judge."""
    use_vlm: bool = True
    """Learn from the judge."""
    use_dmd: bool = True
    """Learn from matching the teacher's distribution."""
    vlm_weight: NonNegative = 0.01
    """lambda_vlm. Matching is a mean over a picture's d numbers, its gradient's length as 1 / sqrt(d): what weighs 0.01
    beside the 65,536 of a latent of 512 pixels is 0.1 for the 768 of 16 x 16 x 3 (laptop), 1 for a vector of six."""
    dmd_weight: NonNegative = 0.5
    """lambda_dmd."""
    guidance: Positive = 1.0
    """w of classifier-free guidance, on the teacher alone; 1 is none."""
    dmd_normalise: bool = True
    """Divide the matching gradient by the teacher's mean error, per sample."""
    unroll: Literal["two-step", "one-step"] = "two-step"
    """How many steps of the sampler are unrolled while learning."""
    t_set: Times = "0.25,0.5,0.75"
    """Times of the second step."""
    one_step_share: Share = 0.25
    """How often the losses act on the one-step estimate, so that t = 1 learns too."""
    backprop_first_step: bool = False
    """Gradient through both steps, for twice the memory."""
    steps_at: Times = "1,0.75,0.5,0.25"
    """Times of the sampler."""
    fresh_noise: bool = False
    """New noise in every step of the sampler."""
    fake_updates: Count = 10
    """Steps of the fake model for one of the editor."""
    lora: Natural = 0
    """Rank of LoRA for the editor; 0 trains all of its weights."""
    lora_alpha: Positive = 16.0
    """LoRA's product is scaled by this over the rank."""
    warmup_steps: Natural = 250
    """Steps of learning to copy; 0 leaves them out, for an editor that comes with --init."""
    teacher_steps: Natural = 20_000
    """Steps of the small text-to-image model; 0 leaves them out."""
    judge_steps: Natural = 5_000
    """Steps of the small judges; 0 leaves them out."""
    small_lr: Positive = 1e-3
    """Learning rate of the three stages that prepare."""
    text_dropout: Share = 0.1
    """How often the teacher learns without its caption, for guidance."""
    edits_each: Count = 4
    """Edits of each picture where they are made of captions."""
    policy_edits: Annotated[int, Range(2)] = 4
    """Edits of each picture that the policy gradient compares."""
    lr: NonNegative = 2e-6
    """Learning rate of the editor and of the fake model."""
    lr_scaling: LearningRateScaling = "none"
    optimizer: Optimizer = "adamw"
    weight_decay: NonNegative = 0.01
    schedule: Schedule = "constant"

    @property
    def learns(self) -> bool:
        """Whether there is an editor to teach; the baseline copy has none."""
        return self.baseline != "copy"


PRESETS = {
    "paper": {
        "base": "diffusers:stabilityai/stable-diffusion-3.5-medium", "image_size": 512, "guidance": 4.5,
        "judge": "hf:llava-hf/llava-onevision-qwen2-7b-ov-hf", "teacher_steps": 0, "batch_size": 32, "steps": 10000,
        "precision": "bf16",
    },
    "lora": {
        "base": "diffusers:stabilityai/stable-diffusion-3.5-medium", "image_size": 512, "guidance": 4.5, "lora": 32,
        "judge": "hf:llava-hf/llava-interleave-qwen-0.5b-hf", "teacher_steps": 0, "batch_size": 4, "steps": 5000,
        "lr": 1e-4, "precision": "bf16",
    },
    "laptop": {
        "base": "unet", "image_size": 16, "flow_width": 24, "flow_patch": 2, "teacher_steps": 400, "judge_steps": 150,
        "warmup_steps": 80, "small_lr": 3e-3, "vlm_weight": 0.1, "fake_updates": 2, "lr": 1e-3, "steps": 150,
        "batch_size": 32,
    },
}  # fmt: skip


class NPEdit(FlowEditor):
    """NP-Edit with its baselines, on pictures with instructions, captions or classes."""

    slug = "np-edit"
    config_class = Config
    config: Config
    modalities = ("image",)
    default_data = "shapes"
    output = "edit"
    pixels = "float32"
    compares = False
    stages: tuple[str, ...] = ("teacher", "judge", "warmup", "edit")

    @classmethod
    def takes(cls, source: Any) -> Any:
        """Pictures with edits: their own, those of ``edits.csv``, or made of captions and classes."""
        return edits(source)

    @classmethod
    def arranged(cls, sources: dict[str, Any], config: Any) -> dict[str, Any]:
        """Refuse supervised training without pairs."""
        if config.baseline == "supervised" and EDITED not in next(iter(sources.values())).fields:
            raise UserError("--baseline supervised learns from pairs: give edits.csv a column edited for every edit")
        return sources

    # ---- networks --------------------------------------------------------------------------------------------
    def build(self) -> None:
        """Editor, teacher, fake model and judges."""
        c = self.config
        if not (c.use_vlm or c.use_dmd or c.baseline != "none"):
            raise UserError("use_vlm=False, use_dmd=False: without judge and matching there is nothing to learn from")
        small = not c.base.startswith("diffusers:")
        generator: nn.Module
        teacher: nn.Module
        if small:
            options: dict[str, Any] = {"patch": c.flow_patch, "width": c.flow_width, "context": CONTEXT}
            made = [flow_network(c.base, self.channels, c.image_size, **options) for _ in range(3)]  # type: ignore[arg-type]
            generator, teacher, self.fake = made
            teacher.requires_grad_(c.teacher_steps > 0)
        else:
            name = c.base.partition(":")[2]
            generator, frozen, self.fake = pipeline_flow(name, c.image_size)  # type: ignore[assignment]
            teacher = Frozen(frozen, name=c.base)
        if c.lora:
            add_lora(generator, c.lora, c.lora_alpha)
        judges = Judges(c.judge, self.channels, width=c.judge_width, form=c.judge_form, context=CONTEXT)
        self.small = small
        self.t_set, steps = times_of(c.t_set, "t_set"), times_of(c.steps_at, "steps_at")
        empty = self.words([""]) if small else None
        self.editor = Editor(generator, empty, steps, fresh=c.fresh_noise, teacher=teacher, judges=judges)
        wanted = {
            "teacher": small and c.teacher_steps > 0,
            "judge": c.judge_steps > 0,
            "warmup": c.warmup_steps > 0 and c.baseline != "copy",
            "edit": True,
        }
        self.stages = tuple(name for name, asked in wanted.items() if asked)
        self.stage = self.stages[0]

    # ---- stages ----------------------------------------------------------------------------------------------
    def stage_plan(self, stage: str) -> Stage:
        """The stages that prepare have lengths of their own."""
        c = self.config
        own = {"teacher": c.teacher_steps, "judge": c.judge_steps, "warmup": c.warmup_steps}
        if stage in own:
            return Stage(settings={"steps": own[stage]})
        return Stage()

    @property
    def learns(self) -> bool:
        """The stages that prepare always do."""
        return self.stage != "edit" or super().learns

    def enter_stage(self, stage: str) -> None:
        """The editor begins as the teacher, and so does the fake model."""
        super().enter_stage(stage)
        if self.small and "teacher" in self.stages and stage == self._after("teacher"):
            copy_weights(self.teacher, self.generator)
        if self.small and stage == "edit":
            copy_weights(self.teacher, self.fake)
        if self.small:
            self.teacher.requires_grad_(stage == "teacher")
        self.judges.requires_grad_(stage == "judge")

    def _after(self, stage: str) -> str:
        return self.stages[self.stages.index(stage) + 1]

    def begins_from(self, given: Mapping[str, Tensor]) -> bool:
        """All that another run of this method delivers: editor, teacher and judges."""
        own = self.editor.state_dict()
        if own.keys() != given.keys() or any(own[name].shape != given[name].shape for name in own):
            raise UserError("--init: a run of np-edit of the same size, base, judge and lora is needed to go on from")
        self.editor.load_state_dict(given)
        return True

    def optimisers(self) -> dict[str, Optim]:
        """Adam for what prepares; the config's for the editor and the fake model."""
        c = self.config
        if self.stage == "teacher":
            return {"teacher": Optim(self.teacher, lr=c.small_lr, schedule="cosine", warmup=20, clip=1.0)}
        if self.stage == "judge":
            parts = self.judges.small.items()
            return {name: Optim(part, lr=c.small_lr, schedule="cosine", warmup=20, clip=1.0) for name, part in parts}
        if self.stage == "warmup":
            lr = c.small_lr if self.small else c.lr
            return {"editor": Optim(self.generator, lr=lr, schedule="cosine", warmup=20, clip=1.0)}
        if not self.learns:
            return {}
        own: dict[str, Any] = {
            "optimizer": c.optimizer, "lr": c.lr, "betas": (c.momentum, 0.999), "weight_decay": c.weight_decay,
            "schedule": c.schedule, "final_lr": c.final_lr,
        }  # fmt: skip
        found = {"editor": Optim(self.generator, **own)}
        return found | ({"fake": Optim(self.fake, **own)} if c.use_dmd and c.baseline == "none" else {})

    # ---- views -----------------------------------------------------------------------------------------------
    def recipe(self) -> Recipe:
        """The picture and its texts; for supervised training the result, too."""
        return self.edit_recipe(supervised=self.config.baseline == "supervised")

    def edit_recipe(self, *, supervised: bool) -> Recipe:
        """Shorter side resized, centre cropped; of the texts one each."""
        texts = tuple(View(name, name, Pipeline((views.PickText(),))) for name in ("text", INSTRUCTION, TARGET, "kind"))
        plain = self.evaluation_view()
        result = (View(EDITED, EDITED, plain),) if supervised else ()
        return Recipe((View("image", "image", plain), *texts, *result))

    def evaluation_view(self) -> Pipeline:
        """Shorter side resized, centre cropped."""
        return next(iter(views.plain(self.config.image_size)))

    # ---- learning --------------------------------------------------------------------------------------------
    def step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """One step of the stage."""
        c = self.config
        if self.stage == "teacher":
            return self.minimise({"loss": self.teacher_loss(batch)})
        if self.stage == "judge":
            return self._judge_step(batch)
        if self.stage == "warmup":
            return self.minimise({"loss": self.identity_loss(batch)})
        if not self.learns:
            return {"loss": torch.zeros((), device=batch["image"].device)}
        if c.baseline == "supervised":
            return self.minimise({"loss": self.supervised_loss(batch)})
        if c.baseline == "policy":
            return self.minimise(self.policy_terms(batch))
        return self._edit_step(batch)

    def _judge_step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Each small judge learns from the pictures of its half."""
        half = (batch["values"]["picture"].long() % 2).tolist()
        shown: dict[str, Tensor] = {}
        for number, name in enumerate(self.judges.small):
            rows = [i for i, h in enumerate(half) if h == number] or list(range(len(half)))[:2]
            loss = self.judges.lesson(name, batch, rows)
            shown[name] = self.minimise({"loss": loss}, optimiser=name)["loss"]
        return shown | {"loss": torch.stack(list(shown.values())).mean()}

    def unrolled(self, y: Tensor, text: Any) -> Tensor:
        """x_0 of the editor for references y (N, ...): of two steps, for a share of the samples of the first alone."""
        c = self.config
        eps = torch.randn_like(y)
        t = torch.tensor(self.t_set, device=y.device)[torch.randint(0, len(self.t_set), (len(y),), device=y.device)]

        def velocity(x_t: Tensor, at: Tensor) -> Tensor:
            return self.generator(x_t, at, text, y)

        if c.unroll == "one-step":
            return objectives.clean_from_velocity(eps, velocity(eps, torch.ones_like(t)), 1.0)
        clean, first = objectives.unroll_flow(velocity, eps, t, backprop_first_step=c.backprop_first_step)
        early = self._uniform(y) < c.one_step_share
        return torch.where(early.view(-1, *[1] * (y.dim() - 1)), first, clean)

    def _edit_step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The fake model learns what the editor makes now; then the editor."""
        c = self.config
        if self.accumulate > 1 and c.use_dmd:
            raise UserError("--accumulate: the fake model moves several times a step; raise --batch-size instead")
        y, said, wanted = self._latents(batch), self.words(batch[INSTRUCTION]), self.words(batch[TARGET])
        shown: dict[str, Tensor] = {}
        for number in range(c.fake_updates if c.use_dmd else 0):
            with torch.no_grad():
                made = self.unrolled(y, said)
            more = number < c.fake_updates - 1
            shown["fake"] = self.minimise({"loss": self.fake_loss(made, wanted)}, "fake", again=more)["loss"]
        made = self.unrolled(y, said)
        judged = self.judges.loss(batch, self.decoded(made), c.question_set) if c.use_vlm else None
        matched = self.matching_loss(made, wanted) if c.use_dmd else None
        terms = objectives.np_edit_terms(judged, matched, vlm_weight=c.vlm_weight, dmd_weight=c.dmd_weight)
        return shown | self.minimise(terms, "editor")

    def fake_loss(self, made: Tensor, wanted: Any) -> Tensor:
        """L_aux on what the editor made, told the caption of the imagined result."""
        t, e = self._uniform(made), torch.randn_like(made)
        return objectives.flow_matching(self.fake(objectives.noised(made, e, t), t, wanted), made, e)

    def matching_loss(self, made: Tensor, wanted: Any) -> Tensor:
        """L_dmd at a time from 0.02 to 0.98; guidance on the teacher alone."""
        c = self.config
        with torch.no_grad():
            t, e = self._uniform(made, 0.02, 0.98), torch.randn_like(made)
            x_t = objectives.noised(made, e, t)
            real, fake = self.teacher(x_t, t, wanted), self.fake(x_t, t, wanted)
            if c.guidance != 1:
                bare = self.teacher(x_t, t, self.words([""] * len(made)))
                real = objectives.guided_velocity(real, bare, c.guidance)
        return objectives.match_distributions(made, x_t, real, fake, t, normalise=c.dmd_normalise)

    # ---- what one keeps --------------------------------------------------------------------------------------
    @torch.no_grad()
    def edit(self, images: Tensor, instructions: list[str]) -> Tensor:
        """Edited pictures (N, C, H, W) in [0, 1] of such pictures; the baseline copy gives them back.

        Raises:
            UserError: as many instructions as pictures are needed.
        """
        if len(images) != len(instructions):
            raise UserError(f"{len(images)} pictures need as many instructions, got {len(instructions)}")
        if self.config.baseline == "copy":
            return images
        return self.editor(images, self.words(instructions))

    def predict(self, batch: dict[str, Any]) -> Tensor:
        """The edited pictures of a batch."""
        return self.edit(batch["image"], batch[INSTRUCTION])

    def deliverable(self) -> nn.Module:
        """The editor, with its teacher and judges."""
        return self.editor

    def deliverable_spec(self) -> dict[str, Any]:
        """What the editor is made of."""
        c = self.config
        keys = ("base", "image_size", "flow_width", "flow_patch", "lora", "steps_at")
        return {"name": "np-edit", "channels": self.channels} | {key: getattr(c, key) for key in keys}

    def exported(self) -> tuple[nn.Module, dict[str, Any]]:
        """The editor without teacher and judges."""
        bare = Editor(self.generator, self.editor.empty, self.editor.steps, fresh=self.editor.fresh)  # type: ignore[arg-type]
        return bare, self.deliverable_spec()
