"""A run: a folder that holds a trained model, and what one does with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from selftaught.engine.method import Method
from selftaught.engine.precision import accelerator
from selftaught.errors import UserError
from selftaught.evaluation import Result
from selftaught.run import applying, evaluating, exporting, reporting, suites, training
from selftaught.run.layout import Layout, write_json
from selftaught.run_settings import Settings

__all__ = ["Run", "compare", "load", "train"]


def train(
    method: str,
    data: Any = None,
    *,
    config: str | Path | None = None,
    resume: str | Path | None = None,
    quiet: bool = False,
    **options: Any,
) -> Run:
    """Train a method and return the run.

    Args:
        method: slug of the method, such as "dcl" (``selftaught methods`` lists them).
        data: a source string, path, array, torch Dataset or Source; None takes the method's embedded default.
        config: a run's config.yaml to repeat.
        resume: folder of an interrupted run to go on with; everything else is then taken from it.
        quiet: no progress bar.
        **options: settings of the run (``epochs``, ``batch_size``, ``out``, ...) or options of the method.

    Returns:
        The finished run.

    Raises:
        UserError: bad input, in one line that names the option or file and the mend.

    >>> selftaught.train("dcl", data="photos/", epochs=100).evaluate()
    """
    if resume is not None:
        return load(training.go_on(resume, data, method=method, quiet=quiet, **options))
    return load(training.start(method, data, config=config, quiet=quiet, **options))


def load(path: str | Path) -> Run:
    """Open a run's folder.

    Raises:
        UserError: not a run folder.
    """
    return Run(path)


class Run:
    """A run on disk.

    Args:
        path: its folder.

    Attributes:
        path: its folder.
        config: its complete configuration, as in config.yaml.
    """

    def __init__(self, path: str | Path) -> None:
        self.layout = Layout(path)
        self.path = self.layout.path
        self.config = self.layout.read_config()
        self._method: Method | None = None
        self._rows: list[dict[str, Any]] = []

    def __repr__(self) -> str:
        return f"<Run {self.config['method']} on {self.config['data']['name']} in {self.path}>"

    # ---- the model -------------------------------------------------------------------------------------------
    @property
    def settings(self) -> Settings:
        """The run's settings."""
        return Settings(**self.config["settings"])

    @property
    def method(self) -> Method:
        """The trained method, in evaluation mode, on the device that serves best.

        Raises:
            UserError: the run was interrupted before its end.
        """
        if self._method is None:
            if not self.layout.weights.exists():
                raise UserError(f"{self.path}: not finished; go on with: selftaught train --resume {self.path}")
            self._method = self._build()
            try:
                self._method.deliverable().load_state_dict(load_file(self.layout.weights))
            except (RuntimeError, OSError, ValueError) as error:
                raise UserError(f"{self.layout.weights}: not this run's weights ({str(error)[:80]})") from error
            self._method.to(accelerator(self.config["settings"].get("device", "auto"))).eval()
        return self._method

    def _build(self, seed: int | None = None) -> Method:
        from selftaught import methods

        kind = methods.get(self.config["method"])
        torch.manual_seed(self.config["settings"]["seed"] if seed is None else seed)
        options = self.config["options"] | ({"pretrained": False} if "pretrained" in self.config["options"] else {})
        return training.build(kind, kind.config_class(**options), self.config["data"])

    def _untrained(self) -> Method:
        return self._build(self.config["settings"]["seed"] + 10_007).to(self.method.device).eval()

    @property
    def encoder(self) -> nn.Module:
        """What the run delivers: normalised samples in, embeddings (or restored images) out."""
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
        say: Callable[[str], None] = lambda line: None,
        **options: Any,
    ) -> dict[str, dict[str, Result]]:
        """Run evaluation protocols, always beside an untrained encoder and the raw input.

        Args:
            data: labelled source; None takes the run's own.
            protocols: names out of ``selftaught.evaluation.PROTOCOLS``; None takes those that the data admit.
            clean: folder of clean images of the same names (restoration).
            seeds: draws of labelled subsets.
            limit: images to restore at most (restoration).
            baselines: judge an untrained encoder and the raw input as well; off only where they are known already.
            say: called with a line before each part.
            **options: of single protocols, ``reference``, ``labels``, ``by``, ``fraction`` ...: see
                :class:`selftaught.run.suites.Options`.

        Returns:
            per protocol the Results of ``this``, ``random`` and ``raw``; also stored in evaluation.json.
        """
        asked = suites.Options.of(options)
        source = self.config["settings"]["data"] if data is None else data
        if self.method.output == "image":
            pictures: dict[str, Any] = {"data": source, "clean": clean, "limit": limit, "say": say}
            found, self._rows = evaluating.restoration_protocol(self.method, self._settings(data), **pictures)
        else:
            bench = suites.Bench(
                self.method,
                self._untrained,
                own=self.settings,
                classes=self.config["data"].get("classes"),
                settings=self._settings(data),
                data=source,
                options=asked,
                baselines=baselines,
                say=say,
            )
            found, kept = evaluating.judge(list(protocols) if protocols else None, bench, seeds=seeds)
            if data is None and kept:
                np.savez_compressed(self.layout.features, **kept)  # type: ignore[arg-type]
        stored = json.loads(self.layout.evaluation.read_text()) if self.layout.evaluation.exists() else {}
        stored |= {n: {k: result.to_dict() for k, result in kinds.items()} for n, kinds in found.items()}
        write_json(self.layout.evaluation, stored)
        return found

    def _settings(self, data: Any) -> Settings:
        """The run's settings; on other data than its own, how that is divided is found out anew."""
        settings = self.settings
        if data is not None:
            settings.by, settings.noise = "auto", ""
        return settings

    def apply(
        self,
        data: Any,
        out: str | Path,
        *,
        workers: int = -1,
        tile: int = 512,
        say: Callable[[int], None] = lambda done: None,
    ) -> int:
        """Write embeddings (.parquet, .npy) or restored images (a folder); call again to go on where it was cut off.

        Returns:
            how many samples were written.
        """
        source = applying.open_input(data, self.method)
        if self.method.output == "image":
            return applying.images(self.method, source, Path(out), tile=tile, say=say)
        classes = self.config["data"].get("classes")
        return applying.embeddings(self.method, source, Path(out), workers=workers, classes=classes, say=say)

    def export(self, format: str = "safetensors", out: str | Path | None = None) -> Path:
        """Write the encoder in a form that loads without selftaught; see :mod:`selftaught.run.exporting`."""
        self.method  # noqa: B018 - an unfinished run says so before its card is looked for
        card = json.loads(self.layout.card.read_text())
        default = self.path / "export" / ("timm" if format == "timm" else f"encoder.{format}")
        device = self.method.device
        try:
            return exporting.export(self.method, card, format, Path(out) if out is not None else default)
        finally:
            self.method.to(device)

    def report(self, say: Callable[[str], None] = lambda line: None) -> Path:
        """Write report.html from what the run has stored; evaluates first where that was not done yet."""
        if not self.layout.evaluation.exists() or (self.method.output == "image" and not self._rows):
            try:
                self.evaluate(say=say)
            except UserError as error:
                say(f"not evaluated: {error}")
                if self.method.output == "image":
                    source = self.config["settings"]["data"]
                    self._rows = evaluating.examples(self.method, self.settings, source)
        return reporting.write(self.layout.report, [self._sections(say)], say)

    def _sections(self, say: Callable[[str], None]) -> dict[str, Any]:
        found = reporting.sections(self.layout, self.method, self.settings)
        say("drawing the report")
        data = self.config["settings"]["data"]
        return found | reporting.pictured(self.layout, self.method, self.settings, data, self._rows)

    def summary(self) -> list[str]:
        """Three lines: what was trained, how it did, where it lies."""
        state = self.layout.read_state()
        steps = sum(stage["steps"] for stage in state["stages"].values())
        seconds = sum(stage["seconds"] for stage in state["stages"].values())
        data = self.config["data"]
        skipped = sum(stage["skipped"] for stage in state["stages"].values())
        lines = [
            f"{self.config['method']} on {data['name']} ({data['samples']} samples): {steps} steps in {seconds:.0f} s"
            + (f", {skipped} unusable samples listed in {self.layout.skipped}" if skipped else "")
        ]
        more = " --clean FOLDER" if self.method.output == "image" else " --data LABELLED"
        lines.append(self._verdict() or f"to know how good it is: selftaught evaluate {self.path}{more}")
        lines.append(f"report: {self.layout.report}" if self.layout.report.exists() else f"run: {self.path}")
        return lines

    def _verdict(self) -> str:
        if not self.layout.evaluation.exists():
            return ""
        stored = json.loads(self.layout.evaluation.read_text())
        for protocol, number, label in (
            ("classify", "accuracy", "accuracy"),
            ("linear", "accuracy", "linear probe"),
            ("knn", "accuracy", "k-NN"),
            ("restoration", "psnr", "PSNR"),
            ("diagnostics", "effective_rank", "effective rank"),
        ):
            kinds = stored.get(protocol)
            if kinds and number in kinds["this"]["numbers"]:
                names = {"this": "this model", "random": "untrained", "raw": "raw input"}
                shown = [f"{names[k]} {r['numbers'][number]['mean']:.3f}" for k, r in kinds.items()]
                return f"{label}: " + ", ".join(shown)
        return ""


def compare(paths: Iterable[str | Path], out: str | Path, say: Callable[[str], None] = lambda line: None) -> Path:
    """One page that sets several runs side by side."""
    runs = [Run(path) for path in paths]
    for run in runs:
        if not run.layout.evaluation.exists():
            run.report(say)
    return reporting.write(Path(out), [run._sections(say) for run in runs], say)
