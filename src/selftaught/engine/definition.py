"""What a method defines, each part with a default."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, Self

from torch import Tensor, nn

from selftaught.data.kinds import kind_of
from selftaught.engine.applied import Applicable
from selftaught.engine.method_config import MethodConfig
from selftaught.engine.optim import parameter_groups, scaled_lr
from selftaught.engine.optimisers import Optim
from selftaught.engine.stages import Stage
from selftaught.engine.standing import Standing
from selftaught.errors import UserError
from selftaught.views import Pipeline

__all__ = ["Definition", "Terms"]

Terms = dict[str, Tensor]


class Definition(Applicable, Standing):
    """The half of :class:`selftaught.engine.method.Method` that its subclasses fill; see there for the attributes."""

    config_class: ClassVar[type[MethodConfig]] = MethodConfig
    modality: str = "image"
    modalities: ClassVar[tuple[str, ...]] = ("image",)
    default_data: ClassVar[str] = "photos"
    output: ClassVar[str] = "embedding"
    needs_labels: ClassVar[bool] = False
    transforms: ClassVar[bool] = False
    compares: ClassVar[bool] = True
    unwatchable: ClassVar[str] = ""
    takes_any: ClassVar[bool] = False
    judged_by: ClassVar[tuple[str, ...]] = ()
    judged_with: ClassVar[str] = ""
    renewed: int = 0
    stages: tuple[str, ...] = ("train",)
    roles: ClassVar[tuple[str, ...]] = ("data",)
    pixels: ClassVar[Literal["uint8", "float32"]] = "uint8"
    pixel_mean: Tensor
    pixel_std: Tensor
    stage: str
    clip: float
    task: int
    branch: int | None
    value_range: Any
    own_views: list[Pipeline] | None
    own_recipe: Any
    reselection: Any

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
        return self.learning_views() if recipe is None and kind_of(source.modality).picture else recipe

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

    def same_survey(self, other: Any) -> None:
        """Take over what ``other``, of the same class and options, found by :meth:`survey`."""

    def loss(self, batch: dict[str, Any]) -> Terms:
        """Named scalar terms of the objective; ``loss`` is the one to minimise."""
        raise TypeError(f"{type(self).__name__} defines no loss")

    def optimisers(self) -> dict[str, Optim]:
        """The optimisers of the current stage by name: one, from the config; none where nothing is learnt."""
        if not self.config.learns:
            return {}
        c, total = self.config, self.total_steps
        lr = scaled_lr(c.lr, self.samples_per_step) if c.lr_scaling == "linear" else c.lr
        per_epoch = max(1, self.epoch_batches // self.accumulate)
        falls = round(1 / c.decay_every) if c.decay_every > 0 else 0
        return {
            "main": Optim(
                self.parameter_groups(lr),
                optimizer=c.optimizer,
                lr=lr,
                betas=(c.momentum, getattr(c, "beta2", 0.999)),
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
        return type(self).pictures is not Definition.pictures

    def deliverable(self) -> nn.Module:
        """The module that a user takes away: normalised samples in, embedding or image out."""
        raise TypeError(f"{type(self).__name__} delivers no module")

    def began_from(self) -> Self | None:
        """The method with the network that it was to change, to be judged beside it; None: it keeps none."""
        return None

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

    @property
    def spatial(self) -> bool:
        """Whether samples have a height and a width that views can crop and turn."""
        return kind_of(self.modality).spatial

    @property
    def evaluation_rows(self) -> int:
        """Samples that are judged at a time, a power of 2: at most 256, fewer where one sample is large."""
        return 256
