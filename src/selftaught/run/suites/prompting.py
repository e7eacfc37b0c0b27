"""Prompts that were learnt, on classes that they were learnt for, on new ones, and on other data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from selftaught.data import Source
from selftaught.engine.embedding import none_usable
from selftaught.errors import UserError
from selftaught.evaluation import Result
from selftaught.evaluation.prompts import base_to_new, cross_set
from selftaught.run import samples
from selftaught.run.contenders import some
from selftaught.run.features import through
from selftaught.run.suites._suite import suite

if TYPE_CHECKING:
    from selftaught.run.bench import Bench

NAME, CROSS = "base-to-new", "cross-set"
HAND_MADE = "a photo of a {}."
_LIMIT = 5000


@suite(NAME)
def judge(bench: Bench) -> dict[str, Result]:
    """Accuracy of learnt prompts (``this``) and of a hand-made one on the same CLIP (``original``).

    Classes that the run was trained on are told from each other alone, new ones from each other alone (the base-to-new
    protocol); on data with other classes all are new (cross-set), on the same classes in another domain none is.

    Raises:
        UserError: a method without prompts, data without named classes.
    """
    method, test = _prompted(bench, NAME), _labelled(bench, bench.data, NAME)
    known = set(bench.classes or ())
    names = list(test.classes or ())
    found = {}
    for kind, prompt in (("this", ""), ("original", HAND_MADE)) if bench.baselines else (("this", ""),):
        bench.say(f"{NAME}: {kind}")
        logits, index = _scores(method, test, names, prompt)
        labels = np.asarray(test.labels)[index]
        found[kind] = base_to_new(logits, labels, np.array([name in known for name in names]))
    return found


@suite(CROSS)
def judge_cross_set(bench: Bench) -> dict[str, Result]:
    """Accuracy of prompts on the data and on further sets (``--reference A,B``), beside the ``original`` CLIP's.

    Sets of other classes make the cross-set protocol, the same classes in other domains the single-source one; each
    set's classes are told from each other alone.

    Raises:
        UserError: a method without prompts, no further set, data without named classes.
    """
    method = _prompted(bench, CROSS)
    if not bench.options.reference:
        raise UserError(f"--protocol {CROSS} judges on other sets: name them with --reference A,B")
    sets = [_labelled(bench, data, CROSS) for data in (bench.data, *str(bench.options.reference).split(","))]
    named: dict[str, Source] = {}
    for test in sets:
        again = sum(test.name == other.name for other in named.values())
        named[f"{test.name} ({again + 1})" if again else test.name] = test
    found = {}
    for kind, prompt in (("this", ""), ("original", HAND_MADE)) if bench.baselines else (("this", ""),):
        answers: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for name, test in named.items():
            bench.say(f"{CROSS}: {kind} on {name}")
            logits, index = _scores(method, test, list(test.classes or ()), prompt)
            answers[name] = logits, np.asarray(test.labels)[index]
        found[kind] = cross_set(answers)
    return found


def _prompted(bench: Bench, name: str) -> Any:
    method: Any = bench.method
    if not hasattr(method, "predict_words"):
        raise UserError(f"--protocol {name} judges prompts: {method.slug} has none; selftaught train gopro --init RUN")
    return method


def _labelled(bench: Bench, data: Any, name: str) -> Source:
    """Test samples of a set with named classes."""
    parts = samples.labelled_parts(data, "image", bench.settings)
    if parts is None or not parts[1].classes:
        raise UserError(f"--protocol {name} needs named classes, {data} has none: give class folders")
    return some(parts[1], _LIMIT)


def _scores(method: Any, source: Source, names: list[str], prompt: str) -> tuple[np.ndarray, np.ndarray]:
    def words(batch: dict[str, Any]) -> torch.Tensor:
        return method.predict_words(batch, names, prompt)

    every = list(through(method, source, words))
    parts = [(found.float().cpu().numpy(), index) for found, index, _ in every if len(index)]
    if not parts:
        raise none_usable(source, [pair for *_, lost in every for pair in lost])
    return np.concatenate([x for x, _ in parts]), np.concatenate([i for _, i in parts])
