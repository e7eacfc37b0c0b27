"""The base of every method: a LightningModule with a card, a typed config, named loss terms and a prediction."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import lightning as L
import torch
from torch import Tensor, nn

from selftaught.data.kinds import kind_of
from selftaught.engine.config import configure
from selftaught.engine.distributed import average_gradients, is_distributed
from selftaught.engine.method_config import LearningRateScaling, MethodConfig, Optimizer, Schedule
from selftaught.engine.optim import parameter_groups, scaled_lr
from selftaught.engine.optimisers import Optim
from selftaught.engine.schedules import ENDLESS, InfiniteSchedule, endless
from selftaught.engine.stages import Stage
from selftaught.errors import UserError
from selftaught.views import Pipeline, render_batch

__all__ = ["LearningRateScaling", "Method", "MethodConfig", "Optim", "Optimizer", "Schedule", "Stage", "configure"]

Terms = dict[str, Tensor]
_STATE = "selftaught"


class Method(L.LightningModule):
    """One published system, wired from the shared rooms.

    Subclasses set ``config_class``, build their networks in ``build`` and define ``loss`` and ``predict``. One with
    several optimisers defines ``optimisers`` and ``step`` as well, and calls :meth:`minimise` for each; backward pass,
    accumulation, clipping, schedules, momentum copies, progress and exact resume then work as they do for one.

    Args:
        config: an instance of the class's ``config_class``, or a dict of its fields; None takes the paper's defaults.
        channels: channels C of a sample.
        length: samples T of a series window (series only).
        samples: size of the training set, for methods that keep a state per sample; 0 where it is not known.
        classes: number of classes of the training set, for methods that learn from labels; 0 without labels.
        modality: kind of the samples, one of ``modalities``; None: series where there is a length, else the first one.
        **options: single fields of the config, overriding it.

    Attributes:
        applied_with: options of ``apply`` that this method has besides those of its kind of output.
        renewed: steps after which what :meth:`finish_of` gives may have changed; 0: never.
        takes_any: whether one network takes samples of any of ``modalities``, whichever the run began with.
        accumulate: batches per optimiser step.
        clip: largest norm of an optimiser's gradient; 0 does not clip.
        steps: steps of the current stage that are done.
        task: number of the current task in a stream of tasks (``--then``); 0 is the first.
        branch: step from which this run anneals another one's state (``--anneal``); None does not.
        reselection: the :class:`selftaught.engine.reselection.Reselection` that chooses the samples anew as the method
            learns; None: all are read.

    Raises:
        UserError: an option that the config does not have, or a value of another type or outside its range or choices.
    """

    config_class: ClassVar[type[MethodConfig]] = MethodConfig
    slug: ClassVar[str] = ""
    modality: str = "image"
    modalities: ClassVar[tuple[str, ...]] = ("image",)
    default_data: ClassVar[str] = "photos"
    output: ClassVar[str] = "embedding"
    needs_labels: ClassVar[bool] = False
    transforms: ClassVar[bool] = False
    compares: ClassVar[bool] = True
    takes_any: ClassVar[bool] = False
    judged_by: ClassVar[tuple[str, ...]] = ()
    applied_with: ClassVar[tuple[str, ...]] = ()
    renewed: int = 0
    stages: tuple[str, ...] = ("train",)
    roles: ClassVar[tuple[str, ...]] = ("data",)
    pixels: ClassVar[Literal["uint8", "float32"]] = "uint8"
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        config: MethodConfig | Mapping[str, Any] | None = None,
        *,
        channels: int = 3,
        length: int | None = None,
        samples: int = 0,
        classes: int = 0,
        modality: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.config = configure(type(self).config_class, config, options)
        self.channels, self.length, self.samples, self.classes = channels, length, samples, classes
        usual = "series" if length is not None and "series" in self.modalities else self.modalities[0]
        self.modality = modality if modality in self.modalities else usual
        if self.needs_labels and classes < 2:
            raise UserError(f"{self.slug} learns from labels: give data with at least two classes (class folders)")
        self.stage = self.stages[0]
        self.accumulate, self.clip = 1, 0.0
        self.steps = 0
        self.task = 0
        self.branch: int | None = None
        self._planned: tuple[int, int] | None = None
        self._batches, self._samples_per_step = 0, 256
        self._optims: dict[str, Optim] = {}
        self._places: dict[str, int] = {}
        self._cleared: set[str] = set()
        self.value_range: Any = None
        self.own_views: list[Pipeline] | None = None
        self.own_recipe: Any = None
        self.reselection: Any = None
        self.register_buffer("pixel_mean", torch.full((channels,), 0.5))
        self.register_buffer("pixel_std", torch.full((channels,), 0.25))
        self.build()

    # ---- what a method defines -------------------------------------------------------------------------------
    def build(self) -> None:
        """Make the networks."""

    @classmethod
    def inherits(cls, original: Mapping[str, Any]) -> dict[str, Any]:
        """Settings and options that a method which ``transforms`` a run takes over from it.

        Args:
            original: the content of that run's config.yaml.

        Raises:
            UserError: a run that this method can't transform.
        """
        return {}

    @classmethod
    def default_source(cls, original: Mapping[str, Any] | None = None) -> str:
        """What to learn from where no data are named: a built-in data set; ``original`` as in :meth:`inherits`."""
        return cls.default_data

    @classmethod
    def takes(cls, source: Any) -> Any:
        """The source as this method reads it, with fields of its own where it needs some; as it is.

        Raises:
            UserError: a source without what the method needs.
        """
        return source

    def begins_from(self, given: Mapping[str, Tensor]) -> bool:
        """Take over what the run in ``--init`` delivers, in a way of the method's own; False: as every method does."""
        return False

    @classmethod
    def streams(cls, source: Any, given: dict[str, Any], opened: Callable[..., Any]) -> dict[str, Any]:
        """The sources of all roles: the run's data for the first, what was given for the others.

        Args:
            source: the run's data.
            given: what was named for single roles.
            opened: opens a source, of the run's kind of samples or of one that is named.

        Raises:
            UserError: a role without a source.
        """
        found = {cls.roles[0]: source}
        for role in cls.roles:
            if role in given:
                found[role] = opened(given[role])
            elif role not in found:
                raise UserError(f"{cls.slug} reads {' and '.join(cls.roles)}: give --{role} SOURCE")
        return found

    @classmethod
    def arranged(cls, sources: dict[str, Any], config: Any) -> dict[str, Any]:
        """The samples of every role as the method learns from them, made of what was given: videos cut into snippets.

        Args:
            sources: by role.
            config: the run's options.

        Raises:
            UserError: sources that nothing can be learnt from.
        """
        return sources

    def views(self) -> list[Pipeline]:
        """The views of a sample to learn from, one pipeline each (images)."""
        return []

    def recipe(self) -> Any:
        """The :class:`selftaught.views.Recipe` of samples of several fields; None: :meth:`views` says it all."""
        return None

    def learning_views(self) -> list[Pipeline]:
        """The views that a run learns from: the user's own, else :meth:`views`."""
        return self.views() if self.own_views is None else self.own_views

    def learning_recipe(self) -> Any:
        """The recipe that a run learns from: the user's own, else :meth:`recipe`."""
        return self.recipe() if self.own_recipe is None else self.own_recipe

    def views_of(self, role: str, source: Any) -> Any:
        """How a stream's samples are shown: the run's recipe, else the views of images; None passes them whole."""
        recipe = self.learning_recipe()
        return self.learning_views() if recipe is None and source.modality == "image" else recipe

    def finish_of(self, role: str) -> Any:
        """What the loader does to a sample's views at last: ``f(views, rng) -> views``, an object to be pickled; None.

        It is for what no view can draw by itself, such as samples in a style that the method has learnt to choose. It
        may change as the run goes on: ``renewed`` says after how many steps, and no batch is read ahead of that.
        """
        return None

    def rows_of(self, role: str, batch_size: int) -> int:
        """Samples of a stream in a batch."""
        return batch_size

    def evaluation_view(self) -> Any:
        """The one deterministic view to embed a sample with (a pipeline or recipe); None takes samples whole."""
        return None

    def finetuning_view(self) -> Any:
        """The recipe of one random view to fine-tune with, named as the modality; None shows the evaluation view."""
        return None

    def survey(self, sources: Mapping[str, Any]) -> None:
        """Look at the training samples of all roles before anything is learnt from them: a vocabulary, frequencies."""

    def same_survey(self, other: Method) -> None:
        """Take over what ``other``, of the same class and options, found by :meth:`survey`."""

    def loss(self, batch: dict[str, Any]) -> Terms:
        """Named scalar terms of the objective; ``loss`` is the one to minimise."""
        raise TypeError(f"{type(self).__name__} defines no loss")

    def optimisers(self) -> dict[str, Optim]:
        """The optimisers of the current stage by name: one, from the config."""
        c, total = self.config, self.total_steps
        lr = scaled_lr(c.lr, self.samples_per_step) if c.lr_scaling == "linear" else c.lr
        per_epoch = max(1, self.epoch_batches // self.accumulate)
        falls = round(1 / c.decay_every) if c.decay_every > 0 else 0
        return {
            "main": Optim(
                self.parameter_groups(lr),
                optimizer=c.optimizer,
                lr=lr,
                betas=(c.momentum, 0.999),
                momentum=c.momentum,
                eta=c.lars_eta,
                lars_clip=c.lars_clip,
                schedule=c.schedule,
                warmup=min(round(c.warmup_epochs * per_epoch), total // 5),
                final_lr=c.final_lr,
                milestones=[max(1, round(total * c.decay_every * (k + 1))) for k in range(falls)],
                gamma=c.decay_factor,
            )
        }

    def step(self, batch: dict[str, Any]) -> Terms:
        """One step of learning from a batch; returns the terms to show, without gradient."""
        return self.minimise(self.loss(batch))

    def validate(self, batch: dict[str, Any]) -> Terms:
        """Terms of held-out samples; ``loss`` decides which weights are best. Called without gradient."""
        return self.loss(batch)

    def watched(self, source: Any) -> float:
        """What decides on whole held-out samples which weights are best, the lower the better, in place of the mean of
        :meth:`validate` over batches: the error of whole volumes.
        """
        raise TypeError(f"{type(self).__name__} watches the loss of batches")

    def inputs(self, batch: dict[str, Any]) -> Tensor:
        """What the networks see of a batch made for evaluation: its one view, or the samples whole."""
        return batch["views"][0] if "views" in batch else batch[self.modality]

    def predict(self, batch: dict[str, Any]) -> Tensor:
        """What ``apply`` writes: embeddings (N, D), restored images (N, C, H, W), or class logits (N, K)."""
        raise TypeError(f"{type(self).__name__} defines no prediction")

    def features(self, batch: dict[str, Any]) -> Tensor:
        """Embeddings (N, D) that the protocols judge: the prediction, unless that is something else."""
        return self.predict(batch)

    def pictures(self, x: Tensor) -> dict[str, Tensor]:
        """What the report shows beside each other of normalised images (N, C, H, W): name to pictures of their shape.

        A method that restores what it hid gives the input, the mask, what it restored and the target.
        """
        return {}

    def selection_features(self, batch: dict[str, Any]) -> Tensor:
        """Features (N, D) by which samples are chosen to go on with; those that the protocols judge."""
        return self.features(batch)

    @property
    def draws(self) -> bool:
        """Whether :meth:`pictures` gives any."""
        return type(self).pictures is not Method.pictures

    def deliverable(self) -> nn.Module:
        """The module that a user takes away: normalised samples in, embedding or image out."""
        raise TypeError(f"{type(self).__name__} delivers no module")

    def deliverable_spec(self) -> dict[str, Any]:
        """JSON-able account of how to build :meth:`deliverable` again, without selftaught where that is possible."""
        return {}

    def exported(self) -> tuple[nn.Module, dict[str, Any]]:
        """What ``export`` writes and its account; the deliverable, unless a plainer network does the same."""
        return self.deliverable(), self.deliverable_spec()

    def listings(self) -> list[dict[str, Any]]:
        """Tables of the report that only the method knows of (see `selftaught.report.schema.Listing`)."""
        return []

    @property
    def also_channels(self) -> tuple[int, ...]:
        """Numbers of channels besides those of training that samples to embed may have."""
        return ()

    def before_step(self) -> None:
        """What precedes a step and belongs to it, before the loss of its first batch is computed."""

    def after_step(self) -> None:
        """What follows a step and belongs to it: momentum copies, normalised prototypes, clamps."""

    def edit_gradients(self, optimizer: Any) -> None:
        """Change gradients or groups of a torch optimiser just before its step, and before clipping."""

    def begin_task(self, source: Any) -> None:
        """Prepare for a further task of a stream; weights are loaded, ``source`` is what the last one learnt from."""

    def order(self, source: Any, role: str) -> Any:
        """The :class:`selftaught.engine.orders.Order` of a stream's samples; None shuffles them."""
        return None

    def stage_plan(self, stage: str) -> Stage:
        """What a stage changes of the run's settings, and what it keeps."""
        return Stage()

    def enter_stage(self, stage: str) -> None:
        """Prepare for one of ``stages``: freeze what it leaves alone."""
        self.stage = stage

    def trained_modules(self) -> nn.Module:
        """What the current stage optimises."""
        return self

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Groups for the optimiser: weights, and what is left out of weight decay."""
        return parameter_groups(self.trained_modules(), weight_decay=self.config.weight_decay)

    # ---- where the run stands --------------------------------------------------------------------------------
    def plan(self, total_steps: int, epoch_batches: int, samples: int = 256) -> None:
        """Fix the length of the current stage: its steps, and batches per pass over the data. Steps start at 0.

        Args:
            total_steps: optimiser steps.
            epoch_batches: batches per pass over the data on one process.
            samples: per step, as long as no trainer knows them better.
        """
        self._planned, self.steps, self._batches = (total_steps, epoch_batches), 0, 0
        self._samples_per_step = samples

    @property
    def total_steps(self) -> int:
        """Steps of the current stage; 1 without a trainer."""
        if self._planned is not None:
            return max(1, self._planned[0])
        if self._trainer is None:
            return 1
        planned = self.trainer.estimated_stepping_batches
        return max(1, int(planned) // self.accumulate) if planned != float("inf") else 1

    @property
    def epoch_batches(self) -> int:
        """Batches per pass over the data on one process; 1 without a trainer."""
        if self._planned is not None:
            return self._planned[1]
        if self._trainer is None:
            return 1
        per_epoch = getattr(getattr(self.trainer, "datamodule", None), "epoch_batches", None)
        if per_epoch is not None:
            return int(per_epoch(self.trainer.world_size))
        batches = self.trainer.num_training_batches
        return max(1, int(batches)) if batches != float("inf") else 1

    @property
    def samples_per_step(self) -> int:
        """Samples per step, over all processes and accumulated batches; without a trainer as planned, or 256."""
        if self._trainer is None:
            return self._samples_per_step
        rows = getattr(getattr(self.trainer, "datamodule", None), "batch_size", 256)
        return int(rows) * self.trainer.world_size * self.accumulate

    @property
    def progress(self) -> float:
        """Share of the current stage that is done, in [0, 1]; 0 where its length isn't known."""
        known = self._planned is not None or self._trainer is not None
        return min(1.0, self.steps / self.total_steps) if known else 0.0

    @property
    def spatial(self) -> bool:
        """Whether samples have a height and a width that views can crop and turn."""
        return kind_of(self.modality).spatial

    @property
    def evaluation_rows(self) -> int:
        """Samples that are judged at a time, a power of 2: at most 256, fewer where one sample is large."""
        return 256

    def scheduled(self) -> dict[str, float]:
        """Options that change over the stage besides the learning rate, as they are at this step.

        An option is scheduled where the class has a property of its name: ``teacher_temperature``, ``weight_decay``.
        """
        names = (field.name for field in dataclasses.fields(self.config))
        found = {name: getattr(self, name) for name in names if isinstance(getattr(type(self), name, None), property)}
        return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}

    @property
    def epochs_done(self) -> float:
        """Passes over the data so far in this stage."""
        return self.steps * self.accumulate / self.epoch_batches

    # ---- one step --------------------------------------------------------------------------------------------
    def training_step(self, batch: dict[str, Any], batch_index: int) -> dict[str, Any]:
        """One batch: the method's step, and what follows it where the step is whole; terms are logged."""
        if self._batches % self.accumulate == 0:
            self._cleared.clear()
            self.before_step()
        self._batches += 1
        terms = {name: value.detach() for name, value in self.step(batch).items()}
        if self._steps_now:
            self.after_step()
            self.steps += 1
        if self.reselection is not None:
            self.reselection.after_batch(self, self._batches)
        if self._trainer is not None and self.trainer.loggers:
            self.log_dict(terms, prog_bar=False, batch_size=_rows(batch))
        return {"terms": terms} | ({"loss": terms["loss"]} if "loss" in terms else {})

    @property
    def _steps_now(self) -> bool:
        """Whether the current batch completes a step."""
        return self._batches % self.accumulate == 0

    def minimise(self, terms: Terms, optimiser: str | None = None, *, again: bool = False) -> Terms:
        """Backward pass of ``terms["loss"]`` and, when the batches of a step are complete, the optimiser's step.

        The one place where weights move: the loss is divided by the number of accumulated batches, gradients reach the
        named optimiser's parameters alone, are clipped, and the learning rate follows its schedule.

        Args:
            terms: named scalars; ``loss`` is minimised.
            optimiser: one of :meth:`optimisers`; None is the only one.
            again: another call in this step follows, so that the learning rate stays where it is.

        Returns:
            The terms without gradient.

        Raises:
            UserError: no such optimiser, or several and none named.
        """
        name = self._named(optimiser)
        optim = self._optims[name]
        detached = {key: value.detach() for key, value in terms.items()}
        if self.steps % optim.every:
            return detached
        found: Any = self.optimizers(use_pl_optimizer=True)
        wrapped = found[self._places[name]] if isinstance(found, list) else found
        loss = terms["loss"] / self.accumulate if self.accumulate > 1 else terms["loss"]
        if self.accumulate == 1 or name not in self._cleared:
            wrapped.zero_grad(set_to_none=True)  # here and not after the step: the backward pass takes their memory
            self._cleared.add(name)
        with torch.autocast(self.device.type, enabled=False):  # the backward pass has the types of the forward one
            self._backward(loss, wrapped)
            if self._steps_now:
                wrapped.step()
        if self._steps_now and not again:
            schedules: Any = self.lr_schedulers()
            (schedules[self._places[name]] if isinstance(schedules, list) else schedules).step()
        return detached

    def _named(self, optimiser: str | None) -> str:
        if not self._optims:
            raise UserError(f"{self.slug or type(self).__name__}: weights move under a trainer only; call loss(batch)")
        if optimiser is None and len(self._optims) > 1:
            raise UserError(f"{self.slug}: minimise(..., optimiser=...) must name one of {', '.join(self._optims)}")
        name = next(iter(self._optims)) if optimiser is None else optimiser
        if name not in self._optims:
            raise UserError(f"{self.slug} has no optimiser {name!r}; it has {', '.join(self._optims)}")
        return name

    def _backward(self, loss: Tensor, wrapped: Any) -> None:
        """Gradients into the optimiser's parameters; with several optimisers into nobody else's."""
        if len(self._optims) == 1:
            self.manual_backward(loss)
            return
        parameters = [p for group in wrapped.param_groups for p in group["params"] if p.requires_grad]
        if not is_distributed():
            self.manual_backward(loss, inputs=parameters)
            return
        with self.trainer.strategy.block_backward_sync():  # type: ignore[attr-defined]
            self.manual_backward(loss, inputs=parameters)
        if self._steps_now:
            average_gradients(parameters)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """What the method does to its gradients, then clipping; Lightning has unscaled them."""
        self.edit_gradients(optimizer)
        limit = self.clip
        for name, place in self._places.items():
            own = self._optims[name].clip
            if self.trainer.optimizers[place] is optimizer and own is not None:
                limit = own
        if limit > 0:
            nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], limit)

    def configure_optimizers(self) -> Any:
        """The optimisers of the stage, each with its schedule; None for a method that learns without gradient.

        Groups with ``constant`` set keep their learning rate.
        """
        self._optims = self.optimisers()
        self._places = {name: place for place, name in enumerate(self._optims)}
        self._check_shared()
        scaled = self.trainer.precision == "16-mixed"
        found = []
        for name, optim in self._optims.items():
            clipped = self.clip if optim.clip is None else optim.clip
            built = self.finish_optimizer(optim.build(name, fused=False if scaled and clipped else None))
            factor = self.rate(optim)
            factors: list[Any] = [_always if group.get("constant") else factor for group in built.param_groups]
            schedule = torch.optim.lr_scheduler.LambdaLR(built, factors)
            found.append({"optimizer": built, "lr_scheduler": {"scheduler": schedule, "interval": "step"}})
        return found or None

    @property
    def endless(self) -> InfiniteSchedule | None:
        """The schedule over the stage's steps where it needs no end (infinite, wsd), else None."""
        if self.config.schedule not in ENDLESS:
            return None
        return endless(self.config, self.total_steps, task=self.task, branch=self.branch)

    def rate(self, optim: Optim) -> Callable[[int], float]:
        """Factor on the learning rate by the optimiser's own steps: an endless schedule is that of all optimisers."""
        total = -(-self.total_steps // optim.every)
        found, every = self.endless, optim.every
        if found is not None:
            return lambda step: found(step * every)
        return lambda step: optim.factor(step, total)

    def _check_shared(self) -> None:
        """Refuse to accumulate where two optimisers move one parameter: their gradients would mix.

        Raises:
            UserError: it names --accumulate.
        """
        if self.accumulate == 1:
            return
        seen: set[int] = set()
        for optim in self._optims.values():
            own = optim.moved()
            if seen & own:
                raise UserError(f"--accumulate {self.accumulate}: {self.slug} moves the same weights by two optimisers")
            seen |= own

    def finish_optimizer(self, optimizer: Any) -> Any:
        """A last word on a torch optimiser that was just built."""
        return optimizer

    # ---- checkpoints -----------------------------------------------------------------------------------------
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Which stage this is, how far it has come, and all that ``load_from_checkpoint`` needs."""
        options = dataclasses.asdict(self.config)
        checkpoint[self.CHECKPOINT_HYPER_PARAMS_KEY] = {
            "config": options | ({"pretrained": False} if "pretrained" in options else {}),  # the weights are in here
            "channels": self.channels,
            "length": self.length,
            "samples": self.samples,
            "classes": self.classes,
            "modality": self.modality,
        }
        checkpoint[_STATE] = {"stage": self.stage, "steps": self.steps, "batches": self._batches}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on counting."""
        known = checkpoint.get(_STATE, {})
        self.steps, self._batches = int(known.get("steps", 0)), int(known.get("batches", 0))

    # ---- batches ---------------------------------------------------------------------------------------------
    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int = 0) -> dict[str, Any]:
        """Make views where that was left to the device, and turn pixels into normalised float32, stream by stream."""
        if "index" in batch:
            return self.prepare(batch)
        return {role: self.prepare(part) for role, part in batch.items()}

    def prepare(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One stream's batch, ready for the networks."""
        if "images" in batch:
            pairs = zip(self.learning_views(), batch.pop("params"), strict=True)
            images = batch.pop("images")
            batch["views"] = [render_batch(images, pipeline, params) for pipeline, params in pairs]
        if "views" in batch:
            batch["views"] = [self.normalise(view) for view in batch["views"]]
        for name, value in batch.items():
            if isinstance(value, Tensor) and value.dtype == torch.uint8 and value.dim() >= 4:
                batch[name] = self.normalise(value)
        return batch

    def normalise(self, image: Tensor) -> Tensor:
        """uint8 or [0, 1] float images (N,C,...) -> float32 with the run's channel mean and deviation taken out.

        Methods of ``pixels = "float32"`` get values in [0, 1] as they are.
        """
        if self.pixels == "float32":
            return image.float() / 255 if image.dtype == torch.uint8 else image.float()
        scale = 255.0 if image.dtype == torch.uint8 else 1.0
        shape = (-1, *[1] * (max(image.dim(), 3) - 2)) if image.dim() > 3 else (-1, 1, 1)
        mean, std = self.pixel_mean.view(shape), self.pixel_std.view(shape)
        image = (image.float() - mean * scale) / (std * scale)
        return image.contiguous(memory_format=torch.channels_last) if image.dim() == 4 else image


def _always(step: int) -> float:
    return 1.0


def _rows(batch: Mapping[str, Any]) -> int:
    """Samples of a batch; of the first stream where there are several."""
    return len(batch["index"] if "index" in batch else next(iter(batch.values()))["index"])
