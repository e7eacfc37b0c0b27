"""What an evaluation is run on: the model, its rivals, the data, and what was asked for."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from selftaught import evaluation
from selftaught._paths import expanded
from selftaught._words import plural
from selftaught.data import Source
from selftaught.engine.method import Method
from selftaught.errors import UserError
from selftaught.evaluation.tuning import RECIPES, parse_tuning
from selftaught.run import contenders, samples
from selftaught.run.contenders import Contender
from selftaught.run_settings import Settings

_LIMIT = 20_000


@dataclass(frozen=True)
class Options:
    """What the suites can be told.

    Attributes:
        reference: source to search (geolocalisation, fairness-retrieval), or with the classes to learn (restricted,
            fairness-labels, hit-rate; default the run's own data); what the start of a fine-tuned run learnt from
            (forgetting; default that run's data); further labelled sets, A,B (refinement, cross-set); or a run to
            compare with (unlearning).
        labels: YAML or JSON file: label set -> classes (fairness-labels), or class folder -> classes (restricted).
        by: columns of metadata.csv to part the images by; default those of the protocol that are there.
        attribute: column that neighbours should share (fairness-retrieval).
        threshold: least confidence of a label (fairness-labels).
        neighbours: k of the nearest neighbours (knn, layerwise, segmentation-knn, point-knn, anomaly); 0 is the
            protocol's own.
        size: shorter side at which images are embedded; 0 is the run's own.
        grid: cells of a map that are averaged apart, such as 2x1 (layerwise).
        fraction: share of every class's training labels (finetune).
        recipe: of ``evaluation.finetune`` (finetune).
        tune: changes to it by name, or as text: ``epochs=20,layer_decay=0.75`` (finetune).
        channel: "y" compares the luma of RGB images, "rgb" all channels; None as the method's papers do (restoration).
        head: linear or upernet (segmentation).
        lpips: "on" (VGG16's weights are fetched), "auto" where they are there, "off" (restoration).
        shave: rows and columns left out at every border; None as the method's papers do (restoration).
        templates: prompts of a class: seven, plain, name, clip, or a file of lines with {} (zero-shot).
        adapt: let the method adapt to the samples that it is judged on first, without their clean ones (clips); "set"
            or "video" says to what at a time.
    """

    reference: Any = None
    labels: str | Path | None = None
    by: Sequence[str] = ()
    attribute: str = "gender"
    threshold: float = 0.1
    neighbours: int = 0
    size: int = 0
    grid: str = "1x1"
    fraction: float = 1.0
    recipe: str = "adamw"
    tune: str | Mapping[str, Any] = ""
    channel: str | None = None
    shave: int | None = None
    lpips: str = "auto"
    head: Any = "linear"
    templates: str = "seven"
    adapt: bool | str = False

    def nearest(self) -> dict[str, int]:
        """``k`` of protocols that go by the nearest neighbours, where it was given."""
        return {"k": self.neighbours} if self.neighbours else {}

    def compared(self) -> dict[str, Any]:
        """Those of restoration that were given, as `evaluation.restoration` takes them."""
        return {name: value for name in ("channel", "shave", "lpips") if (value := getattr(self, name)) is not None}

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Options:
        """Options by name.

        Raises:
            UserError: no such option, or a value that it can't have.
        """
        known = [f.name for f in dataclasses.fields(cls)]
        for name in given:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                raise UserError(f"evaluate has no option {name!r}; {f'did you mean {near[0]}?' if near else known}")
        options = cls(**given)
        if not 0 < options.fraction <= 1:
            raise UserError(f"--fraction {options.fraction}: a share of the labels, above 0 and at most 1")
        if options.neighbours < 0:
            raise UserError(f"--neighbours {options.neighbours}: 1 or more, or 0 for the protocol's own number")
        if options.size < 0:
            raise UserError(f"--size {options.size}: a side in pixels, or 0 for the run's own")
        options.cells()
        if options.recipe not in RECIPES:
            raise UserError(f"--recipe {options.recipe}: fine-tuning has {', '.join(RECIPES)}")
        options.tuned()
        return options

    def tuned(self) -> dict[str, Any]:
        """Changes to the recipe of fine-tuning, as `evaluation.finetune` takes them."""
        return parse_tuning(self.tune)

    def cells(self) -> tuple[int, int]:
        """Rows and columns of ``grid``."""
        rows, _, columns = self.grid.partition("x")
        if not (rows.isdigit() and columns.isdigit() and int(rows) and int(columns)):
            raise UserError(f"--grid {self.grid}: rows x columns, such as 1x1, 2x1 or 3x1")
        return int(rows), int(columns)


@dataclass
class Bench:
    """What a suite is run on.

    Attributes:
        method: the trained method; ``untrained`` makes another with fresh weights.
        own: settings of the run, and ``classes``, the names of its classes.
        settings: how ``data``, the source to evaluate on, is divided.
        baselines: whether an untrained encoder and the raw input are judged as well.
        say: called with a line before each part.
        protocols: those asked for; empty for those that the data admit.
        seeds: draws of labelled subsets.
        clean: source of clean images of the same names (restoration).
        limit: images to restore at most (restoration).
        classifies: whether the method gives classes of its own.
    """

    method: Method
    untrained: Callable[[], Method]
    own: Settings
    classes: list[str] | None
    settings: Settings
    data: Any
    options: Options
    baselines: bool
    say: Callable[[str], None]
    protocols: Sequence[str] = ()
    seeds: int = 5
    clean: Any = None
    limit: int = 50
    classifies: bool = False
    _plain: Method | None = field(default=None, init=False)

    def each(self, name: str, source: Source) -> Iterator[Contender]:
        """The contenders, one after another; the untrained one at its best on ``source``."""
        size = self.options.size
        self.say(f"{name}: this")
        yield Contender("this", self.method, size)
        if self.baselines:
            self.say(f"{name}: untrained")
            self._plain = self._plain or self.untrained()
            yield contenders.calibrated("random", self._plain, size, source)
            self.say(f"{name}: raw")
            yield Contender("raw", self.method, size)

    def folder(self, name: str, holds: str) -> Path:
        """``data`` as a folder."""
        path = expanded(self.data) if isinstance(self.data, str | Path) else None
        if path is None or not path.is_dir():
            raise UserError(f"--protocol {name} needs --data FOLDER with {holds}; {self.data} is none")
        return path

    def reference_classes(self, name: str) -> Source:
        """Labelled training samples that a contender learns the classes from."""
        reference = self.options.reference
        where, settings = (self.own.data, self.own) if reference is None else (reference, Settings())
        parts = samples.labelled_parts(where, "image", settings)
        if parts is None:
            raise UserError(f"--protocol {name} needs classes, {where} has none: give --reference with class folders")
        return contenders.some(parts[0], _LIMIT)

    def scorers(self, name: str, source: Source) -> Iterator[tuple[str, np.ndarray, np.ndarray, list[str], str]]:
        """Class scores for ``source``: kind, logits, indices, names of the classes, and a note.

        A classifier gives its own; every other contender learns a linear head on the reference's labels.
        """
        own = self.classifies and self.options.reference is None
        learnt = self.reference_classes(name) if self.baselines or not own else None
        for contender in self.each(name, source):
            if own and contender.kind == "this":
                logits, index = contender.predictions(source)
                yield "this", logits, index, list(self.classes or map(str, range(logits.shape[1]))), ""
                continue
            assert learnt is not None
            assert learnt.labels is not None
            x, at = contender.features(learnt)
            labels = learnt.labels[at]
            head = evaluation.linear_head(x, labels)
            names = [learnt.classes[k] if learnt.classes else str(k) for k in np.unique(labels)]
            tx, index = contender.features(source)
            note = f"classes by a linear head on {plural(len(x), 'labelled image')} of {learnt.name}"
            yield contender.kind, head(tx), index, names, "" if own else note
