"""From a method, a source and options to one complete configuration."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
from pathlib import Path
from typing import Any

from selftaught import catalog
from selftaught.catalog.rules import rules_of
from selftaught.data import Modality, open_source
from selftaught.data.combining.concat import UnlikeSources
from selftaught.data.formats.volumes import kind_by_shape
from selftaught.data.kinds import kind_of
from selftaught.engine.method import MethodConfig
from selftaught.engine.precision import accelerator
from selftaught.errors import UserError
from selftaught.run.layout import read_yaml
from selftaught.run_settings import Settings

_SETTINGS = {f.name for f in dataclasses.fields(Settings)}


def base(config: str | Path | dict[str, Any] | None, data: Any = None) -> dict[str, Any] | None:
    """The content of a configuration to begin with, its parts of the kind that they must be.

    Args:
        config: file, content or None.
        data: given beside it, and wins over what it names.

    Raises:
        UserError: not a configuration, or a part that is none.
    """
    if config is None:
        return None
    content = read_yaml(Path(config)) if isinstance(config, str | Path) else config
    where = config if isinstance(config, str | Path) else "config"
    settings = content.get("settings", {})
    parts = {"settings": settings, "options": content.get("options", {}), "data": content.get("data", {})}
    if isinstance(settings, dict):
        parts["streams"] = settings.get("streams", {})
    for name, part in parts.items():
        if not isinstance(part, dict):
            raise UserError(f"{where}: {name} is {type(part).__name__} {part!r:.40}, where names with values belong")
    if data is None and "data" in settings and not (settings["data"] and isinstance(settings["data"], str)):
        raise UserError(f"{where}: data is {settings['data']!r:.40}; name a source there, or give --data")
    return content


def resolve(
    kind: type[Any], modality: str, given: dict[str, Any], config: dict[str, Any] | None = None
) -> tuple[Settings, MethodConfig]:
    """Merge defaults, preset, configuration file and single options; the later wins.

    Args:
        kind: the method's class.
        modality: of the data; series have presets of their own.
        given: single options, of the run or of the method.
        config: the content of a run's config.yaml.

    Raises:
        UserError: unknown option or preset; a value of another type, or outside its range or choices.
    """
    merged: dict[str, Any] = {}
    preset = given.get("preset") or (None if config else default_preset(kind.slug, modality, given.get("device")))
    if preset:
        merged |= _preset(kind.slug, preset)
    if config:
        merged |= _numbers(kind, config.get("settings", {}) | config.get("options", {}))
    if given.get("epochs") is not None and given.get("steps") is None:
        merged.pop("steps", None)
    merged |= {name: value for name, value in given.items() if value is not None}
    merged["preset"] = preset or merged.get("preset")
    options = {f.name for f in dataclasses.fields(kind.config_class)}
    if "encoder" in options and not given.get("encoder") and not config and not _is_for(preset, modality, kind):
        merged["encoder"] = kind_of(modality).encoder
    for name in merged:
        if name not in _SETTINGS | options:
            near = difflib.get_close_matches(name, _SETTINGS | options, 1)
            hint = f"did you mean {near[0]}?" if near else f"see: selftaught methods {kind.slug}"
            raise UserError(f"no option {name!r} for {kind.slug}: {hint}")
    settings = Settings(**{k: v for k, v in merged.items() if k in _SETTINGS - options})
    method_options = kind.config_class(**{k: v for k, v in merged.items() if k in options})
    queue = given.get("queue")
    if isinstance(queue, int) and 0 < queue < settings.batch_size:
        raise UserError(
            f"--queue {queue}: a batch of {settings.batch_size} would not fit into it; take at least as many"
        )
    return settings, method_options


def _numbers(kind: type[Any], written: dict[str, Any]) -> dict[str, Any]:
    """What a person wrote into a configuration, numbers as they are meant: YAML takes ``4e-3`` for text."""
    rules = rules_of(Settings) | rules_of(kind.config_class)
    found = dict(written)
    for name, value in written.items():
        if isinstance(value, str) and name in rules and rules[name].type in ("int", "float"):
            with contextlib.suppress(ValueError):
                found[name] = rules[name].parse(value)
    return found


def options_of(kind: type[Any], options: dict[str, Any], folder: Any) -> MethodConfig:
    """A method's options as a run's config.yaml holds them.

    Raises:
        UserError: an option that the method does not have, or a value that it can't take.
    """
    known = {f.name for f in dataclasses.fields(kind.config_class)}
    for name in options:
        if name not in known:
            raise UserError(f"{folder}/config.yaml: {kind.slug} has no option {name!r}: damaged, or of another version")
    return kind.config_class(**options)


def _is_for(preset: str | None, modality: str, kind: type[Any]) -> bool:
    """Whether the encoder of a preset (or of the method) is one for this kind of samples."""
    own = kind.modalities[0] == modality or (preset or "").endswith(f"-{modality}")
    return own or not kind_of(modality).encoder


def default_preset(slug: str, modality: str, device: str | None) -> str | None:
    """laptop on a CPU (laptop-series for series), else the paper's defaults."""
    return catalog.default_preset(slug, modality, accelerator(device or "auto") == "cpu")


def _preset(slug: str, name: str) -> dict[str, Any]:
    presets = catalog.presets(slug)
    if name not in presets:
        raise UserError(f"--preset {name}: {slug} has {', '.join(presets) or 'none'}")
    return dict(presets[name])


def modality_of(kind: type[Any], data: Any) -> Modality:
    """The modality that a method will see in a source: its own, or the source's where it takes several.

    Arrays that could be images or volumes are told apart by their shapes, where the method takes both.

    Raises:
        UserError: it can't be opened.
    """
    if len(kind.modalities) == 1:
        return kind.modalities[0]
    try:
        found = open_source(data, split="all").modality
    except UnlikeSources as error:
        apart = [f"--{role}" for role in kind.roles if role in {kind_of(m).plural for m in kind.modalities}]
        if not apart:
            raise
        raise UserError(f"{error}; what {kind.slug} reads beside --data goes by {', '.join(apart)}") from None
    if found == "image" and "volume" in kind.modalities:
        return kind_by_shape(data)[0] or found
    return found if found in kind.modalities else kind.modalities[0]


def complete(slug: str, settings: Settings, options: MethodConfig, facts: dict[str, Any]) -> dict[str, Any]:
    """The content of config.yaml."""
    return {
        "method": slug,
        "settings": _plain(dataclasses.asdict(settings)),
        "options": _plain(dataclasses.asdict(options)),
        "data": facts,
    }


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {k: (str(v) if isinstance(v, Path) else list(v) if isinstance(v, tuple) else v) for k, v in values.items()}
