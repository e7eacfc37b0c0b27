"""What a kind of output says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from selftaught.data import Source
from selftaught.engine.method import Method
from selftaught.errors import UserError
from selftaught.evaluation import Result
from selftaught.run import exporting
from selftaught.run.applying import Applied, Job
from selftaught.run_settings import Settings

if TYPE_CHECKING:
    from selftaught.run.bench import Bench

__all__ = ["Judged", "Output", "Page"]


@dataclass
class Judged:
    """What an evaluation found.

    Attributes:
        found: per protocol the Results of ``this``, ``random`` (an untrained model) and ``raw`` (the input).
        features: arrays to draw from later (``features``, ``index``, ``labels``), kept beside the numbers.
        sections: ready sections of the report (see :class:`selftaught.report.schema.Run`), kept beside the numbers.
    """

    found: dict[str, dict[str, Result]]
    features: dict[str, np.ndarray] = field(default_factory=dict)
    sections: dict[str, Any] = field(default_factory=dict)


@dataclass
class Page:
    """What a page is drawn from.

    Attributes:
        method: the trained method.
        train: samples that it was trained on, or None where they are gone.
        test: samples that it was judged on, or None.
        settings: of the run.
        features: arrays kept by the evaluation; empty where there are none.
        sections: sections kept by the evaluation.
        checkpoint: the run's last, which holds all of its networks; None or gone: only what it delivers is there.
    """

    method: Method
    train: Source | None
    test: Source | None
    settings: Settings
    features: dict[str, np.ndarray]
    sections: dict[str, Any]
    checkpoint: Path | None = None


class Output:
    """A kind of output: base of the one class in each file of this folder.

    Attributes:
        hint: the option that an evaluation needs to say how good the model is.
        headlines: (protocol, number, its name), the first that was measured is the run's summary.
        frame_by_frame: whether ``apply`` of a method of images takes videos, too.
        classifies: whether the prediction is logits of the classes of the training data.
        takes: options of ``apply`` that this kind has besides those of all, and for each what argparse is told of it
            (``help``, ``choices``, ``action``); a literal, so that the command line can read it without loading torch.
    """

    hint: ClassVar[str] = "--data LABELLED"
    headlines: ClassVar[tuple[tuple[str, str, str], ...]] = ()
    frame_by_frame: ClassVar[bool] = False
    classifies: ClassVar[bool] = False
    takes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def needed(self, settings: Settings, data: Mapping[str, Any]) -> str:
        """The option that an evaluation of just this run needs; none where its own data have classes to judge by.

        Args:
            settings: of the run.
            data: what is known of its training data.
        """
        return "" if self.hint == Output.hint and data.get("classes") else self.hint

    def apply(self, job: Job) -> Applied:
        """Write the method's result for every sample of a source; called again it goes on where it was cut off.

        Raises:
            UserError: another run's results lie there; a place that this kind can't be written to.
        """
        raise UserError(f"{job.method.slug} gives no result per sample; export RUN gives its model")

    def evaluate(self, bench: Bench) -> Judged:
        """Run the protocols that judge this kind.

        Raises:
            UserError: a protocol that does not fit, or data without what it needs.
        """
        raise UserError(f"{bench.method.slug} has no protocol that judges it")

    def draw(self, page: Page) -> dict[str, Any]:
        """Sections of the report that need samples (see :class:`selftaught.report.schema.Run`)."""
        return dict(page.sections)

    def export(self, method: Method, card: dict[str, Any], form: str, out: Path) -> Path:
        """Write the deliverable in a form that loads without selftaught; see `exporting.export`."""
        return exporting.export(method, card, form, out, example=self.example(card), free=self.free_axes())

    def card(self, method: Method, facts: dict[str, Any]) -> dict[str, Any]:
        """What encoder.json says: how to build the deliverable again, and what it takes.

        Args:
            method: the trained method.
            facts: of its training data, as in config.yaml.
        """
        return {
            "method": method.slug,
            "output": method.output,
            "modality": facts["modality"],
            "channels": facts["channels"],
            "build": method.deliverable_spec(),
            "normalise": {"mean": facts.get("mean"), "std": facts.get("std"), "value_range": facts.get("value_range")},
            "image_size": getattr(method.config, "image_size", None),
            "length": facts.get("length"),
            "frames": getattr(method.config, "frames", None),
            "volume_size": getattr(method.config, "volume_size", None),
        }

    def example(self, card: dict[str, Any]) -> Tensor:
        """A batch of the shape that the deliverable takes; its account may name the shape of a sample, ``example``."""
        generator = torch.Generator().manual_seed(0)
        if card["build"].get("example"):
            return torch.rand(2, *card["build"]["example"], generator=generator)
        if card["length"]:
            return torch.randn(2, card["channels"], card["length"], generator=generator)
        side, frames = card["image_size"] or 64, card["frames"]
        sizes: tuple[int, ...] = (frames, side, side) if frames else (side, side)
        if card["modality"] == "volume" and card.get("volume_size"):
            sizes = tuple(int(n) for n in card["volume_size"].split("-"))
        return (torch.rand(2, card["channels"], *sizes, generator=generator) - 0.5) / 0.25

    def free_axes(self) -> dict[int, tuple[str, int, int]]:
        """Axes besides the batch that may have any size, as axis -> (name, least, most)."""
        return {}
