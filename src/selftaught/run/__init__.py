"""A run: a folder that holds a trained model, and what one does with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from selftaught._words import plural, typed
from selftaught.data import Scale, Source, open_source
from selftaught.engine.checkpoint import read_checkpoint
from selftaught.engine.method import Method
from selftaught.engine.precision import accelerator
from selftaught.errors import UserError, first_line
from selftaught.networks import name_module
from selftaught.networks.own import begin_anew
from selftaught.run import (
    annealing,
    applying,
    configuration,
    evaluations,
    extending,
    outputs,
    reporting,
    samples,
    searching,
    stages,
    training,
)
from selftaught.run.bench import Bench, Options
from selftaught.run.evaluations import Found
from selftaught.run.job import build
from selftaught.run.layout import Layout, unusable
from selftaught.run.ranks import is_first, local_rank, process_count
from selftaught.run.suites import image_text
from selftaught.run_settings import Settings

__all__ = ["Run", "compare", "load", "train"]

Say = Callable[[str], None]


def _silent(line: str) -> None:
    """Say nothing."""


def train(
    method: str,
    data: Any = None,
    *,
    config: str | Path | None = None,
    resume: str | Path | None = None,
    quiet: bool = False,
    report: bool = False,
    **options: Any,
) -> Run:
    """Train a method and return the run.

    Args:
        method: slug of the method, such as "dcl" (``selftaught methods`` lists them).
        data: a source string, path, array, torch Dataset or Source; None takes the method's built-in data set.
        config: a run's config.yaml to repeat.
        resume: folder of an interrupted run to go on with; all else is its own. "auto": the one in ``out``, or start.
        quiet: no progress bar.
        report: evaluate and write report.html at the end.
        **options: settings of the run (``epochs``, ``batch_size``, ``out``, ...) or options of the method;
            ``finish_now``: with ``resume``, end the run where it stands;
            ``own_views`` (or ``views``, where the method has no such option): views of your own in place of the
            method's (a YAML file, pipelines, a ViewSet or a Recipe); ``encoder``: a name, or a module of your own;
            ``callbacks``: further Lightning callbacks; ``trainer``: further options of Lightning's trainer, such as
            ``{"deterministic": True, "profiler": "simple"}`` (what a run has of its own is refused).

    Returns:
        The finished run.

    Raises:
        UserError: bad input, in one line that names the option or file and the mend.

    >>> selftaught.train("dcl", data="photos/", epochs=100).evaluate()
    """
    if resume == "auto":
        resume, options = training.begun(options)
    if options.get("anneal") is not None:
        resume, options = annealing.branch_off(**training.branch_options(options)), {}
    if options.get("extend") is not None:
        known = ("steps", "epochs", "out")
        if other := [name for name, value in options.items() if value is not None and name not in ("extend", *known)]:
            raise UserError(f"--extend goes on as the run was begun; leave out --{other[0].replace('_', '-')}")
        resume = extending.extend(options["extend"], **{name: options.get(name) for name in known})
        options = {}
    if options.get("finish_now") and resume is None:
        raise UserError("--finish-now ends an interrupted run: name it with --resume RUN")
    if resume is not None:
        run = load(training.go_on(resume, data, method=method, quiet=quiet, **options))
    else:
        run = load(training.start(method, data, config=config, quiet=quiet, **options))
    if report and is_first():
        run.report()
    return run


def rehearse(
    method: str, data: Any = None, *, config: str | Path | dict[str, Any] | None = None, **options: Any
) -> str:
    """What `train` would do with these arguments, without doing it: nothing is trained or written.

    Says how the data were understood, the networks' parameters, each stage's steps, learning rates and other schedules
    as sketches, the shapes of a batch, and the memory that a step takes.

    Args:
        method: as `train`.
        data: as `train`.
        config: as `train`.
        **options: as `train`.

    Raises:
        UserError: what `train` would refuse before it begins.
    """
    return "\n".join(training.rehearse(method, data, config=config, **options))


def load(path: str | Path, *, partial: bool = False, encoder: nn.Module | None = None) -> Run:
    """Open a run's folder.

    Args:
        path: the folder.
        partial: take an interrupted run as its last checkpoint left it; a finished one is taken as it is.
        encoder: the module that the run was trained with (``train(..., encoder=MODULE)``), with any weights.

    Raises:
        UserError: not a run folder.
    """
    if encoder is not None:
        name_module(encoder)
    return Run(path, partial=partial)


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
        """The method, ready for the kind of samples of ``data`` where it takes several; None: the run's own.

        Samples of another kind than the run's are scaled by their own range of values.
        """
        if method.takes_any:
            own = self.config["data"]["modality"]
            method.modality = own if data is None else configuration.modality_of(type(method), data)
            known = self.config["data"] if method.modality == own else {}
            method.value_range = Scale(known["value_range"], known.get("depth")) if "value_range" in known else None
        return method

    def _load(self) -> Method:
        method = self._build()
        path = self.layout.weights
        if not path.exists():
            path = self._last_checkpoint(method)
        elif problem := stages.deliverable_problem(self.layout):
            raise UserError(f"{problem}; write it again with: selftaught train --resume {typed(self.path)}")
        try:
            if path == self.layout.weights:
                method.deliverable().load_state_dict(load_file(path))
            else:
                content = read_checkpoint(path)
                method.load_state_dict(content.get("state_dict", content))
        except (RuntimeError, OSError, ValueError, KeyError, SafetensorError) as error:
            raise UserError(f"{path}: not this run's weights, or damaged ({first_line(error, 80)})") from error
        for name, value in method.deliverable().state_dict().items():
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise UserError(f"{path}: NaN or infinity in {name}: the training diverged; train again, with --clip 1")
        device = accelerator(self.config["settings"].get("device", "auto"))
        if device == "cuda" and process_count() > 1:
            torch.cuda.set_device(local_rank() % torch.cuda.device_count())
        return method.to(device).eval()

    def _last_checkpoint(self, method: Method) -> Path:
        """The checkpoint of the last stage that has one: what a finished stage ended with, else its last."""
        several = len(method.stages) > 1
        found = []
        for stage in method.stages:
            final = self.layout.stage(stage, several).final
            found.append(final if final.exists() else self.layout.checkpoint(stage))
        found = [path for path in found if path.exists()]
        if not found:
            raise UserError(f"{self.path}: interrupted before its first checkpoint; train again: nothing is lost")
        if not self.partial:
            raise UserError(
                f"{self.path}: not finished; go on with: selftaught train --resume {typed(self.path)} "
                "(or use what there is, with --partial)"
            )
        return found[-1]

    def _build(self, seed: int | None = None) -> Method:
        from selftaught import methods

        kind = methods.get(self.config["method"])
        torch.manual_seed(self.config["settings"]["seed"] if seed is None else seed)
        options = self.config["options"] | ({"pretrained": False} if "pretrained" in self.config["options"] else {})
        return build(kind, configuration.options_of(kind, options, self.path), self.config["data"])

    def _untrained(self) -> Method:
        fresh = self._build(self.config["settings"]["seed"] + 10_007)
        begin_anew(fresh)
        fresh.same_survey(self.method)
        return fresh.to(self.method.device).eval()

    @property
    def output(self) -> outputs.Output:
        """The kind of thing that the run delivers; some methods have an option for it, which a finished run knows."""
        from selftaught import methods

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
        say: Say = _silent,
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

    def report(self, say: Say = _silent) -> Path:
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
        drawn = found | self.output.draw(self._page(lead, say))
        return drawn | {"listings": [*(drawn.get("listings") or []), *reporting.selections(self.layout)]}

    def _page(self, lead: evaluations.Evaluation, say: Say) -> outputs.Page:
        """What the report's pictures are drawn from."""
        method = self._facing(self.method, None)
        settings, modality = self.settings, self.config["data"]["modality"]
        data = settings.data if lead.own else lead.data
        kept = lead.features()
        train: Source | None = None
        test: Source | None = None
        try:
            taken = method.takes(samples.training_source(settings.data, modality, settings))
            train = method.arranged({method.roles[0]: taken}, method.config)[method.roles[0]]
        except UserError as error:  # gone since, or it had no name: what is stored is shown
            say(f"without pictures of the training data: {error}")
        if data is not None:
            try:
                split: Literal["all", "test"] = "all" if "whole" in kept else "test"
                by = settings.by if lead.own else "auto"
                test = open_source(data, modality=modality, split=split, by=by, seed=settings.seed)
            except UserError as error:
                say(f"without pictures of {data}: {error}")
        saved = self.layout.checkpoint(self.method.stages[-1])  # holds the parts that are not delivered, too
        return outputs.Page(method, train, test, settings, kept, lead.sections(), saved)

    def summary(self) -> list[str]:
        """Three lines: what was trained, how it did, where it lies."""
        from selftaught import methods

        state = self.layout.read_state()
        steps = sum(stage["steps"] for stage in state["stages"].values())
        seconds = sum(stage["seconds"] for stage in state["stages"].values())
        data = self.config["data"]
        own, tasks = self.layout.skipped, self.layout.path / "tasks"
        skipped = len(unusable([self.layout, *map(Layout, tasks.glob("[0-9]*"))]))
        streams = (data, *data.get("beside", {}).values())
        read = [f"{one['name']} ({plural(one['samples'], 'sample')})" for one in streams]
        lines = [
            f"{self.config['method']} on {' and '.join(read)}: "
            f"{plural(steps, 'step')} in {seconds:.0f} s"
            + (f", {plural(skipped, 'unusable sample')} listed in {own if own.exists() else tasks}" if skipped else "")
        ]
        needed = methods.get(self.config["method"]).judged_with or self.output.needed(self.settings, data)
        more = f"selftaught evaluate {typed(self.path)} {needed}".rstrip()
        lines.append(self._headline() or f"to know how good it is: {more}")
        lines.append(f"report: {self.layout.report}" if self.layout.report.exists() else f"run: {self.path}")
        return lines

    def _headline(self) -> str:
        """The first of the output's headline numbers that was measured, on the data that the report is about."""
        lead = evaluations.leading(self.layout)
        stored = lead.numbers()
        for protocol, number, label in self.output.headlines:
            kinds = stored.get(protocol)
            if kinds and number in kinds["this"]["numbers"]:
                shown = [f"{evaluations.NAMES[k]} {r['numbers'][number]['mean']:.3f}" for k, r in kinds.items()]
                seen = (kinds["this"].get("figures") or {}).get("seen")
                where = f" on {seen}" if seen else "" if lead.own else f" on {lead.name}"
                return f"{label}{where}: " + ", ".join(shown)
        return ""


def compare(paths: Iterable[str | Path], out: str | Path, say: Say = _silent) -> Path:
    """One page that sets several runs side by side."""
    runs = [Run(path) for path in paths]
    for run in runs:
        if not evaluations.all_evaluations(run.layout):
            run.report(say)
    return reporting.write(Path(out), [run._sections_of_report(say) for run in runs], say)
