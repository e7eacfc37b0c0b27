"""Holds a run to its schema, and names whatever is out of shape."""

from __future__ import annotations

import base64
import binascii
import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints, is_typeddict

import numpy as np

from selftaught.errors import UserError
from selftaught.report.curves import SCORES
from selftaught.report.schema import Run


def plain(value: Any) -> Any:
    """Turn numpy arrays and scalars, tuples, sets and paths into what JSON knows, all the way down."""
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(item) for item in value), key=str)
    return str(value) if isinstance(value, PurePath) else value


def validate(run: Mapping[str, Any]) -> dict[str, Any]:
    """Check one run against :class:`Run` and return a cleaned copy: plain lists, no NaN, pictures without prefix.

    Raises:
        UserError: (a ``ValueError``) names the section and what is wrong with it, e.g.
            ``report: label_efficiency.curves[0].mean has 3 values where label_efficiency.x has 4``.
    """
    if not isinstance(run, Mapping):
        raise UserError(f"report: a run is a dict of sections, not a {type(run).__name__}")
    clean: dict[str, Any] = _check(plain(run), Run, "")
    for section in (_metrics, _labels, _map, _views, _clouds, _restoration, _frames, _series, _listings, _timeline):
        section(clean)
    return clean


def _fail(path: str, message: str) -> UserError:
    return UserError(f"report: {path.lstrip('.') or 'the run'} {message}")


def _check(value: Any, hint: Any, path: str) -> Any:
    origin = get_origin(hint)
    if hint is Any:
        return value
    if origin is Annotated:
        return _picture(value, path)
    if origin in (Union, UnionType):
        return _check_union(value, get_args(hint), path)
    if is_typeddict(hint):
        return _check_dict(value, hint, path)
    if origin is list:
        if not isinstance(value, list):
            raise _fail(path, f"should be a list, not {_kind(value)}")
        (item,) = get_args(hint)
        return [_check(entry, item, f"{path}[{i}]") for i, entry in enumerate(value)]
    if origin is dict:
        if not isinstance(value, dict):
            raise _fail(path, f"should be a dict, not {_kind(value)}")
        return {key: _check(entry, get_args(hint)[1], f"{path}.{key}") for key, entry in value.items()}
    return _check_scalar(value, hint, path)


def _check_scalar(value: Any, hint: type, path: str) -> Any:
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    if hint is float and numeric:
        return value if math.isfinite(value) else None
    if hint is int and numeric and float(value).is_integer():
        return int(value)
    if hint in (str, bool) and isinstance(value, hint):
        return value
    wanted = {float: "a number", int: "a whole number", str: "text", bool: "true or false"}[hint]
    raise _fail(path, f"should be {wanted}, not {_kind(value)}")


def _check_union(value: Any, hints: Sequence[Any], path: str) -> Any:
    if value is None and NoneType in hints:
        return None
    rest = [hint for hint in hints if hint is not NoneType]
    for hint in rest[:-1]:
        try:
            return _check(value, hint, path)
        except UserError:
            continue
    return _check(value, rest[-1], path)


def _check_dict(value: Any, hint: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _fail(path, f"should be a dict, not {_kind(value)}")
    fields = get_type_hints(hint, include_extras=True)
    for key in value:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            mend = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(fields)}"
            raise _fail(path, f"has no key {key!r}; {mend}")
    return {key: _check(entry, fields[key], f"{path}.{key}") for key, entry in value.items()}


def _picture(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise _fail(path, f"should be a PNG, JPEG or WebP as base64 text, not {_kind(value)}")
    body = value.partition(",")[2] if value.startswith("data:") else value
    try:
        head = base64.b64decode(body, validate=True)[:12]
    except (binascii.Error, ValueError):
        head = b""
    if head[:4] != b"\x89PNG" and head[:3] != b"\xff\xd8\xff" and (head[:4], head[8:]) != (b"RIFF", b"WEBP"):
        raise _fail(path, "should be a PNG, JPEG or WebP as base64 text; it is none (see report.images.encode)")
    return body


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"


def _same_length(values: Sequence[Any] | None, path: str, count: int, other: str) -> None:
    if values is not None and len(values) != count:
        raise _fail(path, f"has {len(values)} values where {other} has {count}")


def _metrics(run: dict[str, Any]) -> None:
    metrics = run.get("metrics") or {}
    traces: dict[str, Any] = metrics.get("series") or {}
    steps = metrics.get("step") or []
    _same_length(metrics.get("stage"), "metrics.stage", len(steps), "metrics.step")
    curves = {name: traces.get(name) for name in ("loss", "lr", "throughput")}
    curves |= {f"terms.{name}": values for name, values in (traces.get("terms") or {}).items()}
    for name, values in curves.items():
        _same_length(values, f"metrics.series.{name}", len(steps), "metrics.step")
    for name in SCORES:
        for i, pair in enumerate(traces.get(name) or []):
            if len(pair) != 2:
                raise _fail(f"metrics.series.{name}[{i}]", f"should be [step, accuracy], not {len(pair)} values")


def _labels(run: dict[str, Any]) -> None:
    section = run.get("label_efficiency") or {}
    count = len(section.get("x") or [])
    for i, curve in enumerate(section.get("curves") or []):
        path = f"label_efficiency.curves[{i}]"
        if "mean" not in curve:
            raise _fail(path, "has no 'mean'")
        if curve.get("role", "this") not in ("this", "original", "random", "raw", "other"):
            raise _fail(f"{path}.role", f"is {curve['role']!r}; known: this, original, random, raw, other")
        for name in ("mean", "low", "high"):
            _same_length(curve.get(name), f"{path}.{name}", count, "label_efficiency.x")


def _map(run: dict[str, Any]) -> None:
    section = run.get("map") or {}
    points = section.get("xy") or []
    for i, point in enumerate(points):
        if len(point) != 2:
            raise _fail(f"map.xy[{i}]", f"should be [x, y], not {len(point)} values")
    for name in ("label", "names"):
        _same_length(section.get(name), f"map.{name}", len(points), "map.xy")
    classes = section.get("classes")
    for i, label in enumerate(section.get("label") or []):
        if classes is not None and not -1 <= label < len(classes):
            raise _fail(f"map.label[{i}]", f"is {label}; map.classes has {len(classes)} names (-1 is 'no label')")
    thumbs = section.get("thumbs")
    if thumbs is not None:
        for name in ("image", "tile", "columns"):
            if not thumbs.get(name):
                raise _fail("map.thumbs", f"has no {name!r}; report.images.sprite_sheet makes it whole")


def _views(run: dict[str, Any]) -> None:
    for key in ("views", "pictures"):
        section = run.get(key) or {}
        columns = section.get("columns")
        for i, row in enumerate(section.get("rows") or []):
            if columns is not None:
                _same_length(row, f"{key}.rows[{i}]", len(columns), f"{key}.columns")
        if section.get("names") is not None:
            _same_length(section["names"], f"{key}.names", len(section.get("rows") or []), f"{key}.rows")


def _clouds(run: dict[str, Any]) -> None:
    for i, cloud in enumerate(run.get("clouds") or []):
        count, where = len(cloud.get("xyz") or []), f"clouds[{i}]"
        for name, rows in {"xyz": cloud.get("xyz") or [], **(cloud.get("colours") or {})}.items():
            _same_length(rows, f"{where}.{name}", count, f"{where}.xyz")
            if any(len(row) != 3 or None in row for row in rows):
                raise _fail(f"{where}.{name}", "should have three numbers in every row")
        if cloud.get("label") is not None:
            _same_length(cloud["label"], f"{where}.label", count, f"{where}.xyz")
            if any(k >= len(cloud.get("classes") or []) for k in cloud["label"]):
                raise _fail(f"{where}.label", "names a class that 'classes' doesn't have")


def _listings(run: dict[str, Any]) -> None:
    for k, item in enumerate(run.get("listings") or []):
        columns, rows = item.get("columns") or [], item.get("rows") or []
        for i, row in enumerate(rows):
            _same_length(row, f"listings[{k}].rows[{i}]", len(columns), f"listings[{k}].columns")
            if item.get("classes") and not all(isinstance(cell, str) for cell in row[:2]):
                raise _fail(f"listings[{k}].rows[{i}]", "should begin with a name and a label to correct")
        if item.get("pictures") is not None:
            _same_length(item["pictures"], f"listings[{k}].pictures", len(rows), f"listings[{k}].rows")


def _frames(run: dict[str, Any]) -> None:
    for i, item in enumerate(run.get("frames") or []):
        _same_length(item.get("noisy"), f"frames[{i}].noisy", len(item.get("restored") or []), f"frames[{i}].restored")


def _restoration(run: dict[str, Any]) -> None:
    for i, item in enumerate(run.get("restoration") or []):
        for name in ("noisy", "restored"):
            if name not in item:
                raise _fail(f"restoration[{i}]", f"has no {name!r} picture")
        for j, box in enumerate(item.get("crops") or []):
            if len(box) != 4 or min(box[:2]) < 0 or min(box[2:]) < 1:
                raise _fail(f"restoration[{i}].crops[{j}]", f"should be [x, y, width, height] in pixels, not {box}")
    for i, row in enumerate(run.get("neighbours") or []):
        if "query" not in row:
            raise _fail(f"neighbours[{i}]", "has no 'query' picture")
        for j, hit in enumerate(row.get("hits") or []):
            if "png" not in hit:
                raise _fail(f"neighbours[{i}].hits[{j}]", "has no 'png' picture")


def _timeline(run: dict[str, Any]) -> None:
    section = run.get("timeline") or {}
    groups = section.get("group") or []
    for name in ("start", "end"):
        _same_length(section.get(name) or [], f"timeline.{name}", len(groups), "timeline.group")
    if any(not 0 <= group < len(section.get("typical") or []) for group in groups):
        raise _fail("timeline.group", "names a group that 'typical' doesn't have")


def _series(run: dict[str, Any]) -> None:
    section = run.get("series") or {}
    for i, window in enumerate(section.get("windows") or []):
        path = f"series.windows[{i}]"
        channels = window.get("channels") or []
        for j, channel in enumerate(channels):
            _same_length(channel, f"{path}.channels[{j}]", len(channels[0]), f"{path}.channels[0]")
        _same_length(window.get("channel_names"), f"{path}.channel_names", len(channels), f"{path}.channels")
    tables: list[tuple[str, Callable[[], Any]]] = [
        ("series.confusion", lambda: section.get("confusion")),
        ("confusion", lambda: run.get("confusion")),
    ]
    for path, get in tables:
        table = get() or {}
        matrix, classes = table.get("matrix") or [], table.get("classes") or []
        _same_length(matrix, f"{path}.matrix", len(classes), f"{path}.classes")
        for i, row in enumerate(matrix):
            _same_length(row, f"{path}.matrix[{i}]", len(classes), f"{path}.classes")
