"""Images and texts in one space: how a run is judged by words, and how it classifies and finds pictures by them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from selftaught import evaluation
from selftaught._paths import expanded
from selftaught._reading import text_of
from selftaught._words import plural
from selftaught.data import Source, open_source
from selftaught.engine.embedding import none_usable
from selftaught.engine.loader import divides
from selftaught.engine.method import Method
from selftaught.errors import SampleError, UserError, require
from selftaught.evaluation import Result
from selftaught.run import samples
from selftaught.run.contenders import some
from selftaught.run.features import calibrate, stream, through
from selftaught.run.initialising import start_from
from selftaught.run.suites._suite import suite

if TYPE_CHECKING:
    from selftaught.run.bench import Bench

RETRIEVAL, ZERO_SHOT = "text-retrieval", "zero-shot"
COLUMNS = ("name", "class")
"""The first columns of the table that `classify` writes; a column of probabilities for each class follows."""
_LIMIT = 5000


def prompts(name: str) -> tuple[str, ...]:
    """Templates by name ("seven", "plain", "name", "clip" for all eighty of open_clip's), or the lines of a file.

    Raises:
        UserError: neither; a line without ``{}``.
    """
    if name in evaluation.TEMPLATES:
        return evaluation.TEMPLATES[name]
    if name == "clip":
        known: Any = require("open_clip", "clip")
        return tuple(make("{}") for make in known.OPENAI_IMAGENET_TEMPLATES)
    path = expanded(name)
    if not path.is_file():
        raise UserError(f"--templates {name}: no such file; or one of {', '.join(evaluation.TEMPLATES)}, clip")
    try:
        lines = tuple(line.strip() for line in text_of(path).splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--templates {name}: can't be read ({error}); write a prompt a line, in UTF-8") from None
    for line in lines or ("",):
        if "{}" not in line:
            raise UserError(f"{path}: {line!r} has no {{}} where the class goes")
    return lines


def is_table(path: Path) -> bool:
    """Whether a file is a table that `classify` wrote, and may write again."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            return file.readline(1000).startswith(",".join(COLUMNS) + ",")
    except OSError:
        return False


def spoken(name: str) -> str:
    """A class as one says it: underscores and hyphens are blanks."""
    return name.replace("_", " ").replace("-", " ")


def worded(method: Method) -> Any:
    """The method, where it knows words.

    Raises:
        UserError: it doesn't.
    """
    if not hasattr(method, "embed_texts"):
        raise UserError(f"{method.slug} knows no words; train one that does: selftaught train clip --data CAPTIONED/")
    return method


# ---- judging -----------------------------------------------------------------------------------------------------
def _classes_to_judge(bench: Bench) -> tuple[Source, Source]:
    """Samples of named classes to train and to test on.

    Raises:
        UserError: a method without words, data without named classes or with two that read alike, templates that can't
            be read.
    """
    worded(bench.method)
    parts = samples.labelled_parts(bench.data, "image", bench.settings)
    if parts is None or not parts[1].classes:
        raise UserError(f"--protocol {ZERO_SHOT} needs named classes, {bench.data} has none: give class folders")
    words = [spoken(name) for name in parts[1].classes]
    twice = next((word for k, word in enumerate(words) if word in words[:k]), None)
    if twice is not None:
        raise UserError(
            f"--protocol {ZERO_SHOT}: two classes of {bench.data} are called {twice!r} in words; rename one"
        )
    prompts(bench.options.templates)
    return parts


def _captions_to_judge(bench: Bench) -> Source:
    """All samples of data with captions.

    Raises:
        UserError: a method without words, data without captions.
    """
    worded(bench.method)
    options: dict[str, Any] = {"modality": "image", "seed": bench.settings.seed, "by": bench.settings.by}
    whole = open_source(bench.data, split="all", **options)
    if "text" not in whole.fields:
        raise UserError(f"--protocol {RETRIEVAL} needs captions, {whole.name} has none")
    return whole


@suite(ZERO_SHOT, needs=_classes_to_judge)
def judge_zero_shot(bench: Bench, parts: tuple[Source, Source]) -> dict[str, Result]:
    """Accuracy of the data's classes by their names, of ``this`` run and an untrained one."""
    test, templates = some(parts[1], _LIMIT), prompts(bench.options.templates)
    return {kind: zero_shot(model, test, templates) for kind, model in _contenders(bench, ZERO_SHOT, parts[0])}


def zero_shot(model: Any, test: Source, templates: Sequence[str]) -> Result:
    """Accuracy of the named classes of a source by their names; by both heads where there are two.

    Args:
        model: a method that knows words.
        test: labelled images with named classes.
        templates: prompts with ``{}``.
    """
    classes = [spoken(name) for name in test.classes or ()]
    heads = ("z", "h") if getattr(model.model, "separate", False) else ("z",)
    images, index = embedded(model, test, heads)
    scores = [
        (x @ model.embed_classes(classes, templates, head).cpu().numpy().T)
        for head, x in zip(heads, images, strict=True)
    ]
    labels = np.asarray(test.labels)[index]
    note = f"{plural(len(classes), 'class')} by {plural(len(templates), 'prompt')} each"
    return evaluation.zero_shot(scores[0], labels, local=scores[1] if len(scores) > 1 else None, note=note)


@suite(RETRIEVAL, needs=_captions_to_judge)
def judge_text_retrieval(bench: Bench, whole: Source) -> dict[str, Result]:
    """R@k of captions by images and of images by captions, of ``this`` run and an untrained one."""
    options: dict[str, Any] = {"modality": "image", "seed": bench.settings.seed, "by": bench.settings.by}
    note, seen, share = "", "", getattr(bench.method.config, "held_out", 0.0)
    if divides(whole, bench.settings.by):
        whole = open_source(bench.data, split="test", **options)
    elif bench.data == bench.own.data and share:
        whole = samples.hold_out(whole, share, bench.own.seed)[1]
        note = "on the held-out pairs that chose the weights"
    elif bench.data == bench.own.data:
        seen = "the pairs that it learnt from"
    part = some(whole, _LIMIT)
    found = {}
    for kind, model in _contenders(bench, RETRIEVAL, part):
        result = text_retrieval(model, part)
        found[kind] = result.noted(note).on_seen(seen)
    return found


def text_retrieval(model: Any, part: Source) -> Result:
    """R@k both ways among the images of a source and all of their texts.

    Args:
        model: a method that knows words.
        part: images with captions.

    Raises:
        UserError: none of them has a caption.
    """
    rows, texts, owner = _said(part)
    (images,), index = embedded(model, part.subset(rows), ("z",))
    kept = np.isin(owner, index)
    places = np.searchsorted(index, owner[kept])
    said = [text for text, keep in zip(texts, kept, strict=True) if keep]
    same = [" ".join(unicodedata.normalize("NFKC", text).lower().split()) for text in said]  # as tokenisers see it
    return evaluation.text_retrieval(images, model.embed_texts(said).cpu().numpy(), places, said=same)


def _said(part: Source) -> tuple[np.ndarray, list[str], np.ndarray]:
    """The samples with a text, all texts, and for each the place of its sample among those."""
    rows: list[int] = []
    texts: list[str] = []
    owner: list[int] = []
    for i in range(len(part)):
        try:
            text = part.sample(i, ["text"])["text"]
        except SampleError:
            continue
        several = (text,) if isinstance(text, str) else text
        texts += several
        owner += [len(rows)] * len(several)
        rows.append(i)
    if not rows:
        raise UserError(f"{part.name}: none of its samples has a caption that can be read")
    return np.array(rows), texts, np.array(owner)


def _contenders(bench: Bench, name: str, train: Source) -> Iterator[tuple[str, Any]]:
    bench.say(f"{name}: this")
    yield "this", bench.method
    if bench.baselines:
        plain = bench.untrained()
        before = _start(bench, name, plain)
        if before is not None:
            yield "original", before
        bench.say(f"{name}: untrained")
        calibrate(plain, some(train, 2000))
        yield "random", plain


def _start(bench: Bench, name: str, plain: Any) -> Method | None:
    """The model that the run began as; None where it began at random, its start knew no words or is gone."""
    if not bench.own.init:
        return None
    model: Any = bench.untrained()
    try:
        start_from(model, bench.own.init)
    except (UserError, OSError) as error:
        bench.say(f"{name}: without the start, {bench.own.init}: {error}")
        return None
    model.to(bench.method.device).eval()
    own, fresh = (dict(m.model.text.named_parameters()) for m in (model, plain))
    if all(torch.equal(value, fresh[key].to(value)) for key, value in own.items()):
        return None  # an image tower alone
    bench.say(f"{name}: the start")
    return model


def embedded(method: Any, source: Source, heads: Sequence[str]) -> tuple[list[np.ndarray], np.ndarray]:
    """Embeddings (n, dim) of images by each head, and the indices (n,) of those that could be read."""

    def both(batch: dict[str, Any]) -> list[Tensor]:
        features = method.features(batch)
        return [method.model.embed_images(features, head).float().cpu() for head in heads]

    every = list(through(method, source, both))
    parts = [(found, index) for found, index, _ in every if found is not None]
    if not parts:
        raise none_usable(source, [pair for *_, lost in every for pair in lost])
    stacked = [torch.cat([found[k] for found, _ in parts]).numpy() for k in range(len(heads))]
    return stacked, np.concatenate([index for _, index in parts])


# ---- classifying -------------------------------------------------------------------------------------------------
class Classified(dict[str, tuple[str, float]]):
    """Name of each image -> its likeliest class and how likely that is.

    Attributes:
        names: of the n images that could be read; two images may be called alike.
        classes: the K classes in words.
        probabilities: (n, K) float32, in the order of the images.
        skipped: name and reason of what could not be read.
    """

    names: list[str]
    classes: list[str]
    probabilities: np.ndarray
    skipped: list[tuple[str, str]]


def classify(
    method: Method, source: Source, classes: Sequence[str], *, templates: str = "plain", workers: int = -1
) -> Classified:
    """Which of the classes, given in words, each image shows most likely.

    Raises:
        UserError: a method without words, fewer than two classes, a class named twice.
    """
    model = worded(method)
    words = [spoken(name.strip()) for name in classes]
    if len(words) < 2 or len(set(words)) < len(words) or not all(words):
        raise UserError(f"--classes {','.join(classes)}: give two different words or more")
    vectors = model.embed_classes(words, prompts(templates)).cpu().numpy()
    factor = float(model.model.scale.detach().exp())
    names: list[str] = []
    found: list[np.ndarray] = []
    skipped: list[tuple[str, str]] = []
    for x, index, bad in stream(method, source, workers=workers, predict=True):
        skipped += [(source.names[i], reason) for i, reason in bad]
        if len(index):
            names += [source.names[i] for i in index]
            logits = torch.from_numpy(factor * (x @ vectors.T))
            found.append(logits.softmax(1).numpy())
    if not found:
        raise none_usable(source, skipped)
    shares = np.concatenate(found)
    best = shares.argmax(1)
    table = Classified({name: (words[k], float(row[k])) for name, k, row in zip(names, best, shares, strict=True)})
    table.names, table.classes, table.probabilities, table.skipped = names, words, shares, skipped
    return table
