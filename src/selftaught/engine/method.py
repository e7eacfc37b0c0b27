"""The base of every method: a LightningModule with a card, a typed config, named loss terms and a prediction."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from selftaught.engine.config import configure
from selftaught.engine.convolutions import mend_convolutions
from selftaught.engine.definition import Definition, Terms
from selftaught.engine.distributed import average_gradients, is_distributed
from selftaught.engine.method_config import LearningRateScaling, MethodConfig, Optimizer, Schedule
from selftaught.engine.optimisers import Optim
from selftaught.engine.schedules import ENDLESS, InfiniteSchedule, endless
from selftaught.engine.sharding import FSDP2, Sharded, average_rest, clip_gradients, shard
from selftaught.engine.stages import Stage
from selftaught.errors import UserError
from selftaught.networks import name_module
from selftaught.views import Pipeline, render_batch

__all__ = ["LearningRateScaling", "Method", "MethodConfig", "Optim", "Optimizer", "Schedule", "Stage", "configure"]

_STATE = "selftaught"


class Method(Definition):
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
        judged_with: the option that ``evaluate`` needs to say how good a run is; "": that of its kind of output.
        applied_with: options of ``apply`` that this method has besides those of its kind of output, and for each what
            argparse is told of it (``help``, ``choices``, ``action``); a literal.
        renewed: steps after which what :meth:`finish_of` gives may have changed; 0: never.
        unwatchable: why its loss says nothing of samples that are held out (``--validation``); "" where it does.
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
        options = {k: name_module(v) if isinstance(v, torch.nn.Module) else v for k, v in options.items()}
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
        self.sharded: list[Sharded] = []
        self.register_buffer("pixel_mean", torch.full((channels,), 0.5))
        self.register_buffer("pixel_std", torch.full((channels,), 0.25))
        self.build()

    def configure_model(self) -> None:
        """Make convolutions safe in bf16 on a CPU; where the strategy asks for it, spread the transformer's blocks over
        the processes.

        Raises:
            UserError: no such blocks, or several optimisers.
        """
        mend_convolutions(self)
        if self.device_mesh is None or self.sharded:
            return
        own = self.optimisers()
        if len(own) > 1 or any(optim.optimizer == "lars" for optim in own.values()):
            raise UserError(f"--strategy {FSDP2}: takes one optimiser, and not LARS; take --strategy ddp")
        self.sharded = shard(self, self.device_mesh["data_parallel"])

    @property
    def learns(self) -> bool:
        """Whether steps of the stage change anything; where they don't, it is one step, which shows the loss."""
        return bool(self.config.learns)

    # ---- one step --------------------------------------------------------------------------------------------
    def step(self, batch: dict[str, Any]) -> Terms:
        """One step of learning from a batch; returns the terms to show, without gradient."""
        if self.learns:
            return self.minimise(self.loss(batch))
        with torch.no_grad():
            return self.loss(batch)

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
                if self.sharded:
                    average_rest(self.parameters())
                self._move(wrapped, counted=not again and name == self._counted)
        if self._steps_now and not again:
            schedules: Any = self.lr_schedulers()
            (schedules[self._places[name]] if isinstance(schedules, list) else schedules).step()
        return detached

    @property
    def _counted(self) -> str:
        """The optimiser whose steps are those of the method: the first that moves at every step, else the first."""
        return next((name for name, optim in self._optims.items() if optim.every == 1), next(iter(self._optims)))

    def _move(self, wrapped: Any, counted: bool) -> None:
        """An optimiser's step; Lightning counts it (``max_steps``, the loggers' axis) once for a step of the method."""
        told = wrapped._on_before_step, wrapped._on_after_step
        if not counted:
            wrapped._on_before_step = wrapped._on_after_step = _nothing
        wrapped.step()
        wrapped._on_before_step, wrapped._on_after_step = told

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
            moved = [p for group in optimizer.param_groups for p in group["params"]]
            (clip_gradients if self.sharded else nn.utils.clip_grad_norm_)(moved, limit)

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
        if self._planned is not None:
            checkpoint[_STATE]["epoch_batches"] = self.epoch_batches

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

    @property
    def pixel_range(self) -> tuple[Any, Any] | None:
        """Mean and deviation that `normalise` takes out of pixels in [0, 1]; None where samples have none."""
        if not self.spatial:
            return None
        return (0.0, 1.0) if self.pixels == "float32" else (self.pixel_mean, self.pixel_std)


def _nothing() -> None:
    pass


def _always(step: int) -> float:
    return 1.0


def _rows(batch: Mapping[str, Any]) -> int:
    """Samples of a batch; of the first stream where there are several."""
    return len(batch["index"] if "index" in batch else next(iter(batch.values()))["index"])
