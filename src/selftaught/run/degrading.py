"""A degraded copy of pictures, with what was done to each in a table: a test set of one's own."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from selftaught import views
from selftaught._paths import ON_DISK
from selftaught.data import from_unit, holds_videos, open_source, to_unit
from selftaught.data.pixels import conform
from selftaught.data.spec import call, near, parse
from selftaught.errors import SampleError, UserError
from selftaught.run import applying
from selftaught.run.applying import Applied
from selftaught.run.copies import Copies
from selftaught.run.degrading_clips import CLIP_RECIPES, degrade_clips
from selftaught.run.outputs import _folder
from selftaught.run.outputs._pictures import replaced, write_image
from selftaught.run.outputs._restoring import read_picture, resized
from selftaught.views import Op, Pipeline, covered

__all__ = ["RECIPES", "TABLE", "degradation", "degrade"]

TABLE = "degraded.csv"
_LONGEST = 255
"""Bytes of a file's name that file systems take."""


def _blur(*, size: int = 21, shortest: float = 5.0, roughness: float = 0.3) -> tuple[Op, ...]:
    return (views.MotionBlur(size, length=(shortest, float(size - 1)), roughness=roughness),)


def _noise(*, sigma: float = 25.0) -> tuple[Op, ...]:
    return (views.GaussianNoise(sigma / 255),)


def _correlated(*, sigma: float = 25.0, kernel: int = 3) -> tuple[Op, ...]:
    return (views.CorrelatedNoise(sigma / 255, kernel=kernel),)


def _low_res(*, scale: int = 4) -> tuple[Op, ...]:
    return (views.Downsample(scale),)


def _jpeg(*, quality: int = 30) -> tuple[Op, ...]:
    return (views.JPEG(quality),)


def _camera(*, gain: float = 8.0, saturation: float = 1.2) -> tuple[Op, ...]:
    return (views.CameraNoise(gain), views.Saturate(saturation))


def _night(*, size: int = 37, gain: float = 8.0, saturation: float = 1.2) -> tuple[Op, ...]:
    return (views.WalkBlur(size), *_camera(gain=gain, saturation=saturation))


def _text(*, words: int = 3, fonts: str = "", file: str = "") -> tuple[Op, ...]:
    return (views.DrawText(words, fonts=fonts, words=file),)


def _reflection(*, kind: str = "perceptual", of: str = "") -> tuple[Op, ...]:
    return (views.Reflection(kind),)


def _weather(*, kind: str = "rain", strength: float = 0.5) -> tuple[Op, ...]:
    return (views.Alteration((kind,), (strength, strength)),)


def _one_weather(kind: str) -> Callable[..., tuple[Op, ...]]:
    def made(*, strength: float = 0.5) -> tuple[Op, ...]:
        return _weather(kind=kind, strength=strength)

    return made


RECIPES: dict[str, tuple[str, Callable[..., tuple[Op, ...]]]] = {
    "blur": ("motion of the camera; the kernel is kept beside each picture", _blur),
    "noise": ("Gaussian noise, sigma of 255", _noise),
    "correlated-noise": ("noise that neighbours share, sigma of 255", _correlated),
    "low-res": ("scale times smaller, antialiased bicubic", _low_res),
    "jpeg": ("compression of a quality", _jpeg),
    "camera": ("a camera at high gain, lights clipped", _camera),
    "text": ("words drawn in styles by chance; their boxes are kept beside each picture", _text),
    "night": ("a walk's blur and the camera's noise; the kernel is kept beside each picture", _night),
    "reflection": ("another picture mirrored in glass: of=FOLDER, else one of the same source", _reflection),
    "rain": ("streaks and drops, strength 0 to 1", _one_weather("rain")),
    "fog": ("thicker with distance, as on a road, strength 0 to 1", _one_weather("fog")),
    "snow": ("flakes, strength 0 to 1", _one_weather("snow")),
    "dark": ("the light of a night, strength 0 to 1", _one_weather("night")),
    "weather": ("kind=rain+fog, dusk, frost, dust ...: any that Robust-Depth knows, strength 0 to 1", _weather),
}
"""Recipe -> what it does, and what makes its operations of its options."""


def degradation(recipe: str) -> Pipeline:
    """The operations of a recipe: ``noise``, ``blur?size=15``, ``reflection?of=FOLDER``, or a YAML file with one view.

    Raises:
        UserError: no such recipe, option or file.
    """
    where, options = parse(recipe)
    if where in RECIPES:
        return Pipeline(call(RECIPES[where][1], where, options), name=where)
    if Path(where).suffix.lower() not in (".yaml", ".yml"):
        every = [*RECIPES, *CLIP_RECIPES]
        known = ", ".join(every)
        raise UserError(f"recipe {where!r}{near(where, every)}: it may be {known}, or a YAML file with a view")
    found = list(views.load(where))
    if len(found) != 1 or not isinstance(found[0], Pipeline):
        raise UserError(f"{where}: a recipe to degrade with has one view")
    return found[0]


def spelled(recipe: str) -> str:
    """A recipe with all its options, those that were not given as they are by default: ``low-res?scale=4``."""
    where, options = parse(recipe)
    if where not in RECIPES:
        return recipe
    usual = {name: one.default for name, one in inspect.signature(RECIPES[where][1]).parameters.items()}
    told = [f"{name}={value}" for name, value in (usual | options).items() if value != ""]
    return f"{where}?{'&'.join(told)}"


def degrade(
    recipe: str,
    data: Any,
    out: str | Path,
    *,
    seed: int = 0,
    overwrite: bool = False,
    say: Callable[[int], None] = lambda done: None,
) -> Applied:
    """Write a degraded copy of every picture, under its name, and a table of what was drawn for each by which recipe.

    Chance depends on the seed and a picture's name alone. A blur's kernel is written as NAME.kernel.txt, the boxes of
    drawn text as NAME.boxes.txt, where the methods that need them look; of photo.jpg and photo.tif in one folder as
    photo.jpg.kernel.txt and photo.tif.kernel.txt. The same call again goes on where it was cut
    off, and makes those pictures again that have changed since.

    Args:
        recipe: see :func:`degradation`; or one of videos (`degrading_clips.CLIP_RECIPES`): rolling-shutter.
        data: source of pictures, or of videos.
        out: folder.
        seed: of the chance.
        overwrite: whether what another call wrote to ``out`` may be replaced.
        say: called with the number of pictures done.

    Returns:
        how many were written now; ``.kept`` counts those that were there already, ``.skipped`` lists those that could
        not be used.

    Raises:
        UserError: an unknown recipe, a place that is the input's or holds something else, another process at work
            there.
    """
    where, options = parse(recipe)
    if where in CLIP_RECIPES:
        return degrade_clips(where, options, data, Path(out), TABLE, overwrite=overwrite, say=say)
    pipeline, told = degradation(recipe), spelled(recipe)
    if holds_videos(data):
        raise UserError(
            f"recipe {where}: is for pictures, and {data} holds videos; these take {', '.join(CLIP_RECIPES)}"
        )
    source = open_source(data, modality="image", split="all")
    mirrored = _mirrored(recipe, source)
    drawn = {"pipeline": repr(pipeline.ops), "recipe": told, "seed": seed}
    if mirrored is not None:
        drawn["of"] = mirrored.fingerprint()
    job = Copies.of(recipe, drawn, source, Path(out), given=data, overwrite=overwrite, say=say)
    columns = [
        "name",
        "recipe",
        "seed",
        *(f"{type(op).__name__}.{column}" for op in pipeline.ops for column in op.columns),
    ]
    columns += ["mirrored"] if mirrored is not None else []
    places = _folder.places(source.names, lambda own: own or ".png")
    often = Counter(place.with_suffix("") for place in places)
    return _folder.write(
        job,
        places,
        lambda i, path: _one(
            source, i, pipeline, path, told, seed, mirrored, alone=often[places[i].with_suffix("")] == 1
        ),
        growing=mirrored is None,  # which picture is mirrored depends on how many there are
        table=lambda rows: applying.write_csv(job.out / TABLE, columns, rows),
    )


def _mirrored(recipe: str, source: Any) -> Any:
    """Where the pictures come from that are mirrored in glass; None: the recipe mirrors none."""
    where, options = parse(recipe)
    if where != "reflection":
        return None
    return open_source(options["of"], modality="image", split="all") if options.get("of") else source


def _reflected(unit: np.ndarray, source: Any, op: Any, params: Any, rng: np.random.Generator, name: str) -> Any:
    """A picture behind glass, and the name of the one that is mirrored: any but itself, where there are others.

    Raises:
        SampleError: none of them can be read.
    """
    others = [j for j in range(len(source)) if source.names[j] != name] or [0]
    first = int(rng.integers(len(others)))
    numbers = dict(zip(op.columns, np.ravel(params).tolist(), strict=True))
    for j in others[first:] + others[:first]:  # the next one takes a damaged one's place
        try:
            other = conform(source.read(j), unit.shape[2], source.names[j], convert=True)
        except SampleError:
            continue
        other = covered(np.ascontiguousarray(to_unit(other, source.value_range), np.float32), *unit.shape[:2])
        made = views.reflect(unit, np.ascontiguousarray(other[:, ::-1]), op.recipe, **numbers)
        return made.blended, source.names[j]
    raise SampleError(name, f"no other picture of {source.name} that could be mirrored")


def _one(
    source: Any, i: int, pipeline: Pipeline, path: Path, told: str, seed: int, mirrored: Any = None, *, alone: bool
) -> list[Any]:
    """Write one picture; the row of the table: its name, the recipe, the seed, and what was drawn.

    ``alone``: no other picture of the folder has its name with another suffix.
    """
    name = source.names[i]
    image, beside = read_picture(source, i, source.channels or 3)
    digest = hashlib.blake2b(name.encode("utf-8", ON_DISK), digest_size=6).digest()
    rng = np.random.default_rng([seed, int.from_bytes(digest, "big")])
    limits = source.value_range
    unit = np.ascontiguousarray(to_unit(image, limits), np.float32)
    facts: dict[str, Any] = {}
    try:
        params = pipeline.sample(rng, *unit.shape[:2])
        other = []
        if mirrored is None:
            made = views.render(unit, pipeline, params, facts=facts)
        else:
            made, *other = _reflected(unit, mirrored, pipeline.ops[0], params, rng, name)
    except UserError as error:
        raise SampleError(name, str(error)) from error
    drawn = any(isinstance(op, views.DrawText) for op in pipeline.ops)
    kernel = _beside(path, "kernel", alone=alone, written="kernel" in facts)
    boxes = _beside(path, "boxes", alone=alone, written=drawn)
    if ("kernel" in facts or drawn) and len(os.fsencode(kernel.name)) > _LONGEST:
        raise SampleError(name, "its name is too long for another file of that name beside it")
    write_image(path, from_unit(np.clip(made, 0, 1), image.dtype, limits), resized(beside, made.shape[:2]))
    if "kernel" in facts:
        _write_numbers(kernel, facts["kernel"], "%.8g")
    if drawn:
        _write_numbers(boxes, views.mask_boxes(facts["mask"]), "%d")
    return [name, told, seed, *map(_written, np.ravel(params).tolist()), *other]


def _beside(path: Path, what: str, *, alone: bool, written: bool) -> Path:
    """The place of a picture's kernel or boxes, where what another recipe or a killed process left is gone."""
    short, own = (path.with_name(f"{called}.{what}.txt") for called in (path.stem, path.name))
    for place in (short, own) if alone or not written else (own,):  # the short name may be another picture's by now
        with contextlib.suppress(OSError):  # a name too long for one
            place.unlink(missing_ok=True)
    return short if alone else own


def _written(value: float) -> str:
    """Ten digits, or all of a whole number: what is drawn of a seed is drawn again from these alone."""
    return str(int(value)) if value.is_integer() else f"{value:.10g}"


def _write_numbers(path: Path, numbers: np.ndarray, form: str) -> None:
    replaced(path, lambda part: np.savetxt(part, numbers, fmt=form))
