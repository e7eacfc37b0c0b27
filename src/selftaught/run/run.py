"""The folder of a run, opened: the trained model, and what one does with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from torch import nn

from selftaught import methods
from selftaught._words import typed
from selftaught.engine.method import Method
from selftaught.errors import UserError
from selftaught.run import applying, evaluations, outputs, reporting, searching, summarising, trained
from selftaught.run.bench import Bench, Options
from selftaught.run.evaluations import Found
from selftaught.run.layout import Layout
from selftaught.run.suites import image_text
from selftaught.run_settings import Settings

__all__ = ["Run", "Say", "silent"]

Say = Callable[[str], None]


def silent(line: str) -> None:
    """Say nothing."""


class Run:
    """A run on disk.

    Args:
        path: its folder.
        partial: take an interrupted run as its last checkpoint left it.

    Attributes:
        path: its folder.
        config: its complete configuration, as in config.yaml.
    """

    def __init__(self, path: str | Path, *, partial: bool = False) -> None:
        self.layout = Layout(path)
        self.path = self.layout.path
        self.config = self.layout.read_config()
        self.partial = partial and not self.layout.weights.exists()
        self._method: Method | None = None

    def __repr__(self) -> str:
        unfinished = " (not finished)" if self.partial else ""
        return f"<Run {self.config['method']} on {self.config['data']['name']} in {self.path}{unfinished}>"

    # ---- the model -------------------------------------------------------------------------------------------
    @property
    def settings(self) -> Settings:
        """The run's settings."""
        return Settings(**self.config["settings"])

    @property
    def method(self) -> Method:
        """The trained method, in evaluation mode, on the device that serves best.

        Raises:
            UserError: the run was interrupted before its end and ``partial`` was not asked for; weights that are
                missing, damaged, or not finite.
        """
        if self._method is None:
            self._method = self._load()
        return self._method

    def _facing(self, method: Method, data: Any) -> Method:
        return trained.facing(method, self.config["data"], data)

    def _load(self) -> Method:
        return trained.loaded(self.layout, self.config, partial=self.partial)

    def _untrained(self) -> Method:
        return trained.untrained(self.config, self.path, self.method)

    @property
    def output(self) -> outputs.Output:
        """The kind of thing that the run delivers; some methods have an option for it, which a finished run knows."""
        known = self.layout.read_card().get("output")
        own = methods.get(self.config["method"]).output
        if known is not None and str(known).replace("-", " ") not in outputs.kinds():
            raise UserError(f"{self.layout.card}: damaged (there is no output {known!r}); delete it and --resume")
        return outputs.of(known or own)

    @property
    def encoder(self) -> nn.Module:
        """What the run delivers: normalised samples in, embeddings or images out."""
        return self.method.deliverable().eval()

    # ---- what one does with it -------------------------------------------------------------------------------
    def evaluate(
        self,
        data: Any = None,
        *,
        protocols: Iterable[str] | None = None,
        clean: Any = None,
        seeds: int = 5,
        limit: int = 50,
        baselines: bool = True,
        report: bool = False,
        say: Say = silent,
        **options: Any,
    ) -> Found:
        """Run evaluation protocols, always beside an untrained model and the raw input.

        Args:
            data: labelled source; None takes the run's own.
            protocols: names out of ``selftaught.evaluation.PROTOCOLS``; None takes those that the data admit.
            clean: folder of clean images of the same names (restoration).
            seeds: draws of labelled subsets.
            limit: images to restore at most (restoration).
            baselines: judge an untrained model and the raw input as well; off only where they are known already.
            report: write the report afterwards.
            say: called with a line before each part.
            **options: of single protocols, ``reference``, ``labels``, ``by``, ``fraction`` ...: see
                :class:`selftaught.run.bench.Options`.

        Returns:
            per protocol the Results of ``this``, ``random`` (untrained) and ``raw``; a dict that prints as tables. It
            is stored in the run's folder: evaluation.json for the run's own data, evaluations/NAME for any other. What
            an unfinished run is worth is not stored.

        Raises:
            UserError: data that don't fit the run or the protocols.
        """
        asked = Options.of(options)
        if asked.adapt:
            applying.check_adapts(self.method)
        bench = Bench(
            self._facing(self._load() if asked.adapt else self.method, data),
            lambda: self._facing(self._untrained(), data),
            own=self.settings,
            classes=self.config["data"].get("classes"),
            settings=self._settings(data),
            data=self.config["settings"]["data"] if data is None else data,
            options=asked,
            baselines=baselines,
            say=say,
            protocols=list(protocols or ()),
            seeds=seeds,
            clean=clean,
            limit=limit,
            classifies=self.output.classifies,
        )
        with applying.asked(bench.method, own=self.evaluation(data).own):
            judged = self.output.evaluate(bench)
        if not self.partial:
            place = self.evaluation(data)
            place.add(judged.found, judged.features, judged.sections)
            if report:
                self.report(say)
        return Found(judged.found)

    def search(
        self,
        data: Any,
        query: str,
        *,
        count: int = 10,
        workers: int = -1,
        say: Callable[[str], None] | None = None,
    ) -> list[searching.Found]:
        """The pictures of a source that a text fits best, by a run that knows words.

        Their embeddings are kept in the run's folder: what is new or changed is embedded at the next search.

        Args:
            data: pictures.
            query: such as "a red car at night".
            count: how many to find.
            workers: loader processes; -1 chooses.
            say: told how many pictures are embedded first, and which could not be used.

        Raises:
            UserError: a run that knows no words, pictures of other channels, an empty query.
        """
        source = applying.open_input(data, self.method)
        options: dict[str, Any] = {"k": count, "workers": workers, "say": say}
        return searching.search(self.method, source, query, self.path / "index", **options)[0]

    def classify(
        self, data: Any, classes: Iterable[str], *, templates: str = "plain", out: Any = None, workers: int = -1
    ) -> image_text.Classified:
        """Which of some classes, given in words, each picture of a source shows, by a run that knows words.

        Args:
            data: pictures.
            classes: in words, such as ("cat", "dog").
            templates: prompts: plain, seven, name, clip, or a file of lines with {}.
            out: a .csv file to write name, class and all probabilities to.
            workers: loader processes; -1 chooses.

        Raises:
            UserError: a run that knows no words, pictures of other channels, fewer than two classes; another file in
                the table's place.
        """
        if out is not None and Path(out).suffix.lower() != ".csv":
            raise UserError(f"--out {typed(out)}: the table is a .csv file")
        if out is not None and Path(out).exists() and not image_text.is_table(Path(out)):
            raise UserError(f"--out {typed(out)}: is there already, and no table of classify; choose another")
        source = applying.open_input(data, self.method)
        found = image_text.classify(self.method, source, list(classes), templates=templates, workers=workers)
        if out is not None:
            rows = [
                (name, found.classes[int(shares.argmax())], *(f"{p:.6f}" for p in shares))
                for name, shares in zip(found.names, found.probabilities, strict=True)
            ]
            applying.write_csv(Path(out), (*image_text.COLUMNS, *found.classes), rows)
        return found

    def evaluation(self, data: Any = None) -> evaluations.Evaluation:
        """What is stored of the evaluation on a source; None is the run's own data."""
        return evaluations.evaluation_on(self.layout, self.config["settings"]["data"], data)

    def _settings(self, data: Any) -> Settings:
        """The run's settings; on other data than its own, how that is divided is found out anew."""
        settings = self.settings
        if not self.evaluation(data).own:
            settings.by, settings.noise = "auto", ""
        return settings

    def apply(
        self,
        data: Any,
        out: str | Path,
        *,
        workers: int = -1,
        tile: int | None = None,
        overwrite: bool = False,
        adapt: bool | str = False,
        progress: Callable[[int], None] = lambda done: None,
        **how: Any,
    ) -> applying.Applied:
        """Write the run's result for every sample: a table (.parquet, .npy) or a folder of pictures, by its output.

        The same call goes on where it was cut off, and leaves alone what is finished.

        Args:
            data: samples; any source.
            out: file or folder to write.
            workers: loader processes; -1 chooses.
            tile: largest side of an image that is restored in one piece, 0 for any size; None: as memory allows, of
                videos 512.
            overwrite: replace what another run, or this one from other data, wrote to ``out``.
            adapt: let the method adapt to the data first (test-time adaptation); "set" to all samples together, "video"
                to each. The run itself stays as it is.
            progress: called with the number of samples done so far.
            **how: options of the kind of output (depth: ``scale``, ``points``, ``intrinsics``; clips: ``into``; points:
                ``components``; edits: ``instruction``), or of the method (selfdrsc: ``instants``; multi-output-deblur:
                ``head``; text-erasing: ``boxes``; infwide: ``kernel``).

        Returns:
            how many samples were written; ``.skipped`` lists those that could not be used.

        Raises:
            UserError: data of other channels; results of another run in ``out``; another process at work there; a
                method that doesn't adapt.
        """
        method = self._facing(self.method, data)
        how = applying.own_options(how, {**self.output.takes, **method.applied_with}, method.slug)
        source = applying.open_input(data, method, videos=self.output.frame_by_frame)
        key = applying.weights_digest(method)
        if adapt:
            method = self._facing(self._load(), data)
            applying.adapt(method, source, adapt)
        job = applying.Job(
            method,
            source,
            Path(out),
            run=str(self.path),
            weights=key,
            classes=self.config["data"].get("classes"),
            options=self.config["options"] | {"adapt": adapt} | how,
            given=data,
            overwrite=overwrite,
            workers=workers,
            tile=tile,
            say=progress,
        )
        with applying.asked(method, how, own=self.evaluation(data).own):
            written = self.output.apply(job)
        written.left_out = dict(getattr(source, "left_out", {}))
        return written

    def export(self, format: str | None = None, out: str | Path | None = None) -> Path:
        """Write the encoder in a form that loads without selftaught; see :mod:`selftaught.run.exporting`.

        Args:
            format: safetensors, timm, onnx or peft; by default onnx where ``out`` ends in .onnx, else safetensors.
            out: file or folder; by default inside the run.
        """
        method = self.method
        card = self.output.card(method, self.config["data"])
        if format is None:
            format = "onnx" if Path(out or "").suffix == ".onnx" else "safetensors"
        default = self.path / "export" / (format if format in ("timm", "peft") else f"encoder.{format}")
        device = method.device
        try:
            return self.output.export(method, card, format, Path(out) if out is not None else default)
        finally:
            method.to(device)

    def report(self, say: Say = silent) -> Path:
        """Write report.html from what the run has stored; evaluates first where that was not done yet.

        It is about the latest evaluation that drew samples (its title says on which data); numbers of all others are
        listed with the name of their data.
        """
        if not evaluations.all_evaluations(self.layout):
            try:
                self.evaluate(say=say)
            except UserError as error:
                say(f"not evaluated: {error}")
        return reporting.write(self.layout.report, [self._sections_of_report(say)], say)

    def _sections_of_report(self, say: Say) -> dict[str, Any]:
        lead = evaluations.leading(self.layout)
        found = reporting.sections(self.layout, lead, evaluations.all_evaluations(self.layout))
        say("drawing the report")
        method = self._facing(self.method, None)
        drawn = found | self.output.draw(reporting.page(self.layout, self.config, method, lead, say))
        return drawn | {"listings": [*(drawn.get("listings") or []), *reporting.selections(self.layout)]}

    def summary(self) -> list[str]:
        """Three lines: what was trained, how it did, where it lies."""
        return summarising.summary(self.layout, self.config, self.output)
