"""What forgetting starts from: the classifier of a finished run, the samples to forget and those to keep."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import nn

from selftaught.catalog.rules import Natural
from selftaught.data.selection import rest, select
from selftaught.data.source import Source
from selftaught.data.spec import with_option
from selftaught.engine.method import LearningRateScaling, Method, MethodConfig, Optimizer, Schedule
from selftaught.errors import UserError
from selftaught.views import Pipeline


@dataclass
class UnlearnerConfig(MethodConfig):
    """Options of methods that make a run's classifier forget."""

    optimizer: Optimizer = "adam"
    lr: float = 1e-4
    lr_scaling: LearningRateScaling = "none"
    weight_decay: float = 0.0
    schedule: Schedule = "constant"
    augment: Literal["none", "original"] = "none"
    """Views to forget and keep by: the plain image, or the augmented view that the original run learnt from."""
    original: str = ""
    """Method and options of the run that forgets, as JSON; taken from --init."""
    image_size: Natural = 0
    """Side of the images in pixels; taken from --init."""


class Unlearner(Method):
    """Base of the methods that take a run which delivers classes, and deliver the same network."""

    config_class = UnlearnerConfig
    config: UnlearnerConfig
    output = "classes"
    modalities = ("image", "series")
    transforms = True
    compares = False
    judged_by = ("unlearning",)
    roles = ("data", "forget", "remain")

    @classmethod
    def inherits(cls, original: Mapping[str, Any]) -> dict[str, Any]:
        """The classifier's method and options, and how its data were divided.

        Raises:
            UserError: the run delivers no classes.
        """
        from selftaught import methods

        method, options, settings = original["method"], original["options"], original["settings"]
        kind = methods.get(method)
        if kind.output != "classes":
            raise UserError(f"--init: {method} delivers no classes; {cls.slug} needs a run that classifies")
        told = (
            options["original"] if issubclass(kind, Unlearner) else json.dumps({"method": method, "options": options})
        )
        found = {name: settings[name] for name in ("split", "by", "noise") if settings.get(name)}
        return found | {"original": told, "image_size": options.get("image_size", 0)}

    @classmethod
    def default_source(cls, original: Mapping[str, Any] | None = None) -> str:
        """What the original run learnt from, divided by that run's seed."""
        if original is None:
            return cls.default_data
        return with_option(original["settings"]["data"], "seed", original["settings"]["seed"])

    @classmethod
    def streams(cls, source: Source, given: dict[str, Any], opened: Any) -> dict[str, Source]:
        """All data, the samples to forget and those to keep: the rest, unless they are named.

        Raises:
            UserError: nothing is to be forgotten, or something is both forgotten and kept.
        """
        if "forget" not in given:
            raise UserError("what is to be forgotten is not said: use --forget class=NAME, a list of names or a folder")
        gone = select(source, given["forget"], option="--forget")
        kept = select(source, given["remain"], option="--remain") if "remain" in given else rest(source, gone)
        both = np.intersect1d(gone, kept)
        if len(both):
            raise UserError(f"--forget and --remain both name {source.names[both[0]]!r} (and {len(both) - 1} more)")
        return {"data": source, "forget": source.subset(gone, "to forget"), "remain": source.subset(kept, "to keep")}

    def build(self) -> None:
        """The classifier, its weights fresh until those of the run are loaded."""
        if not self.config.original:
            raise UserError(f"{self.slug} makes a trained classifier forget: give its run with --init RUN")
        if self.classes < 2:
            raise UserError(f"{self.slug} needs the classes of the original run: at least two")
        self.model = self.fresh_classifier()
        self.modality = self.model.modality

    def fresh_classifier(self) -> Method:
        """The original run's method with fresh weights."""
        from selftaught import methods

        told = json.loads(self.config.original)
        kind = methods.get(told["method"])
        options = told["options"] | ({"pretrained": False} if "pretrained" in told["options"] else {})
        config = kind.config_class(**options)
        return kind(config, channels=self.channels, length=self.length, samples=self.samples, classes=self.classes)

    def views(self) -> list[Pipeline]:
        """One view: the plain image, or an augmented one."""
        if self.config.augment == "original":
            return self.model.views()[:1]
        view = self.model.evaluation_view()
        return [] if view is None else [view]

    def evaluation_view(self) -> Any:
        """The original run's."""
        return self.model.evaluation_view()

    def features(self, batch: dict[str, Any]) -> Any:
        """The encoder's features (N, D)."""
        return self.model.features(batch)

    def predict(self, batch: dict[str, Any]) -> Any:
        """Class scores (N, K)."""
        return self.model.predict(batch)

    @property
    def encoder(self) -> nn.Module:
        """The classifier's encoder."""
        return self.model.encoder  # type: ignore[return-value]

    def deliverable(self) -> nn.Module:
        """The classifier, built as the original run's is."""
        return self.model.deliverable()

    def deliverable_spec(self) -> dict[str, Any]:
        """The original run's account."""
        return self.model.deliverable_spec()
