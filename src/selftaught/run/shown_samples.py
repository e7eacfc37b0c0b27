"""What a report shows of the samples: their views, the map of their embeddings, a gallery of neighbours, windows."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import numpy as np
import torch

from selftaught._words import one_text
from selftaught.data import Source, as_uint8
from selftaught.data.kinds import kind_of
from selftaught.data.pixels import conform
from selftaught.engine.batches import draw, render_sample
from selftaught.engine.method import Method
from selftaught.errors import SampleError
from selftaught.report import images as pictures
from selftaught.run import evaluating
from selftaught.run.contenders import some
from selftaught.run.outputs._base import Page
from selftaught.run.timeline import timeline
from selftaught.run_settings import Settings
from selftaught.views import Pipeline, render

__all__ = ["excerpt", "samples_and_map", "thumbnail"]

_TILE, _POINTS, _QUERIES, _HITS, _ROWS = 48, 600, 8, 8, 6
_EXCERPT = 160
_GALLERY, _VIEW, _FILM = 160, 240, 72
"""Longest sides of pictures in pixels: at most about one and a half times as large as they are shown."""


def samples_and_map(page: Page) -> dict[str, Any]:
    """The sections of an encoder that need the samples: views, map, gallery, windows."""
    found: dict[str, Any] = {}
    if page.train is not None and kind_of(page.train.modality).pixels:
        found["views"] = _views(page.train, page.method, page.settings)
        whole = _whole(page)
        if whole is not None:
            found["pictures"] = _made(page.train, whole, page.settings)
    index = page.features.get("index")
    test = None if page.test is None else some(page.test, evaluating.LIMIT_TEST)  # as it was drawn to be judged
    if test is not None and index is not None and int(index.max(initial=-1)) < len(test):
        found |= _embedding_sections(test, page.method, page.features, test.modality)
        if test.modality == "clip":
            found["timeline"] = timeline(test, page.method)
    return found


def _views(source: Source, method: Method, settings: Settings) -> dict[str, Any]:
    """Some samples as they are evaluated, and the views that training makes of them."""
    rng = np.random.default_rng(settings.seed)
    rows, names, columns = [], [], []
    for i in rng.permutation(len(source))[:_ROWS]:
        try:
            seen = {"original": thumbnail(source, method, int(i))} | _views_of(source, method, int(i), rng)
        except SampleError:
            continue
        columns = list(seen)
        rows.append([pictures.encode(picture, size=_VIEW, quality=80) for picture in seen.values()])
        names.append(_called(source, int(i)))
    return {"columns": columns, "rows": rows, "names": names} if rows else {}


def _called(source: Source, i: int) -> str:
    """The name of a sample, and its text where it has one."""
    if "text" not in source.fields:
        return str(source.names[i])
    text = source.sample(i, ["text"])["text"]
    return f"{source.names[i]}: {text if isinstance(text, str) else ' / '.join(text)}"


def _views_of(source: Source, method: Method, i: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Each view of a sample as a picture, by its name."""
    recipe = method.learning_recipe()
    if recipe is not None:
        recipe = recipe.with_kinds({name: field.kind for name, field in source.fields.items()})
        found = render_sample(source, i, recipe, rng, value_range=method.value_range)
        return {name: _still(value) for name, value in found.items() if "." not in name and np.ndim(value) in (3, 4)}
    image = _conformed(source, method, i)
    size = image.shape[:2]
    made = (render(image, p, draw(p, rng, size[0], size[1], source.names[i])) for p in method.learning_views())
    return {f"view {k}": view for k, view in enumerate(made, start=1)}


def _whole(page: Page) -> Method | None:
    """The method with all of its networks, not only what it delivers, where it makes pictures of them."""
    method, saved = page.method, page.checkpoint
    if not method.draws or method.modality != "image" or saved is None or not saved.exists():
        return None
    if not isinstance(method.evaluation_view(), Pipeline):
        return None
    found, kept = copy.deepcopy(method), method.deliverable().state_dict()
    found.load_state_dict(torch.load(saved, map_location=method.device, weights_only=True)["state_dict"])
    found.deliverable().load_state_dict(kept)  # averaged or best weights, where the run kept those
    return found.eval()


_MADE = (
    "Hidden parts are shown in the mean colour. Where patch tokens are shown, like colours are like parts to the "
    "model, in all pictures alike."
)


def _made(source: Source, method: Method, settings: Settings) -> dict[str, Any]:
    """What the method makes of some samples, in pictures; every time of the same ones."""
    rng, found, names = np.random.default_rng(settings.seed), [], []
    for i in rng.permutation(len(source))[:_ROWS]:
        try:
            found.append(thumbnail(source, method, int(i)))
        except SampleError:
            continue
        names.append(str(source.names[int(i)]))
    if not found:
        return {}
    x = torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).to(method.device)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(settings.seed)
        parts = method.pictures(method.normalise(x))
    mean, std = method.pixel_mean.view(-1, 1, 1), method.pixel_std.view(-1, 1, 1)
    columns = {name: _as_pictures(part.float() * std + mean) for name, part in parts.items()}
    rows = [[pictures.encode(p, size=_VIEW, quality=80) for p in row] for row in zip(*columns.values(), strict=True)]
    return {"columns": list(columns), "rows": rows, "names": names, "note": _MADE} if rows else {}


def _as_pictures(x: torch.Tensor) -> list[np.ndarray]:
    """Images (N, C, H, W) in [0, 1] as uint8 (H, W, C); what lies outside is cut off."""
    return list((x.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy())


def _still(sample: np.ndarray) -> np.ndarray:
    """A picture of a sample: itself, or the middle frame of a clip or slice of a volume; uint8 (H,W,C)."""
    return as_uint8(sample[len(sample) // 2] if sample.ndim == 4 else sample)


def _conformed(source: Source, method: Method, i: int) -> np.ndarray:
    """A sample as the method sees it before its views, as a uint8 picture."""
    sample = source.read(i)
    sample = sample[len(sample) // 2] if sample.ndim == 4 else sample
    return as_uint8(conform(sample, method.channels, source.names[i]), method.value_range)


def thumbnail(source: Source, method: Method, i: int) -> np.ndarray:
    """A sample as it is evaluated, as a uint8 picture (H,W,C)."""
    plain, image = method.evaluation_view(), _conformed(source, method, i)
    if not isinstance(plain, Pipeline):
        return image
    return render(image, plain, draw(plain, np.random.default_rng(0), image.shape[0], image.shape[1], source.names[i]))


def _embedding_sections(source: Source, method: Method, kept: dict[str, np.ndarray], modality: str) -> dict[str, Any]:
    from selftaught import evaluation

    rng = np.random.default_rng(0)
    shown = np.sort(rng.permutation(len(kept["index"]))[:_POINTS])
    index, features = kept["index"][shown], kept["features"][shown]
    labels = kept["labels"][shown] if "labels" in kept else None
    untrained = kept["random"][shown] if len(kept.get("random", ())) == len(kept["index"]) else None
    names = [str(source.names[i]) for i in index]
    found: dict[str, Any] = {
        "map": {
            "xy": evaluation.project(features).coordinates,
            "label": labels,
            "classes": source.classes if labels is not None else None,
            "names": names,
            "seen": method.needs_labels,
        }
    }
    if modality == "text":
        found["map"]["names"] = [excerpt(source, int(i)) for i in index]
        return found
    if not kind_of(modality).pixels:
        found["series"] = {"windows": _windows(source, index, labels, rng)}
        return found
    thumbs = [thumbnail(source, method, int(i)) for i in index]
    found["map"]["thumbs"] = pictures.sprite_sheet(thumbs, tile=_TILE)

    def label(k: int) -> str | None:
        return None if labels is None else source.classes[labels[k]] if source.classes else str(labels[k])

    def gallery(of: np.ndarray, query: int) -> list[dict[str, Any]]:
        unit = of / np.maximum(np.linalg.norm(of, axis=1, keepdims=True), 1e-12)
        return [
            {
                "png": tiles[h],
                "label": label(h),
                "name": names[h],
                "similarity": float(unit[query] @ unit[h]),
                "point": h,
                **tiles.films,
            }
            for h in evaluation.nearest(of, np.array([query]), k=_HITS)[0].tolist()
        ]

    if len(index) < 2:
        return found
    rows = []
    tiles = _Films(source, method, index) if modality == "clip" else _Encoded(thumbs)
    for query in rng.permutation(len(index))[:_QUERIES].tolist():
        row = {"query": tiles[query], "label": label(query), "name": names[query], "point": query} | tiles.films
        row["hits"] = gallery(features, query)
        if untrained is not None:
            row["untrained"] = gallery(untrained, query)
        rows.append(row)
    found["neighbours"] = rows
    return found


def excerpt(source: Source, i: int) -> str:
    """The beginning of a text."""
    text = one_text(source.read(i))
    return text if len(text) <= _EXCERPT else f"{text[: _EXCERPT - 3]}..."


class _Encoded(dict[int, str]):
    """Thumbnails as text, each made once."""

    films: ClassVar[dict[str, int]] = {}

    def __init__(self, thumbs: list[np.ndarray]) -> None:
        super().__init__()
        self.thumbs = thumbs

    def __missing__(self, k: int) -> str:
        self[k] = pictures.encode(self.thumbs[k], size=_GALLERY, quality=80)
        return self[k]


class _Films(dict[int, str]):
    """Clips as strips of a few frames beside each other, which the page shows one after the other."""

    films: ClassVar[dict[str, int]] = {"frames": 8}

    def __init__(self, source: Source, method: Method, index: np.ndarray) -> None:
        super().__init__()
        self.source, self.method, self.index = source, method, index

    def __missing__(self, k: int) -> str:
        i, count = int(self.index[k]), self.films["frames"]
        clips: Any = self.source
        numbers = np.linspace(0, clips.frames(i) - 1, count).round().astype(np.int64)
        shown = clips.read(i, frames=np.unique(numbers))[np.searchsorted(np.unique(numbers), numbers)]
        self[k] = pictures.film(as_uint8(shown, self.method.value_range), side=_FILM)
        return self[k]


def _windows(source: Source, index: np.ndarray, labels: np.ndarray | None, rng: Any) -> list[dict[str, Any]]:
    rows = []
    for k in rng.permutation(len(index))[:_ROWS]:
        window: dict[str, Any] = {"channels": source.read(int(index[k])), "rate": source.rate}
        if labels is not None:
            window["label"] = source.classes[labels[k]] if source.classes else str(labels[k])
        rows.append(window)
    return rows
