"""From a method, a source and options to one complete configuration."""

from __future__ import annotations

import dataclasses
import difflib
from pathlib import Path
from typing import Any

from selftaught import catalog
from selftaught.data import Modality, open_source
from selftaught.data.formats.volumes import kind_by_shape
from selftaught.data.kinds import kind_of
from selftaught.engine.method import MethodConfig
from selftaught.engine.precision import accelerator
from selftaught.errors import UserError
from selftaught.run_settings import Settings

_SETTINGS = {f.name for f in dataclasses.fields(Settings)}


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
        merged |= config.get("settings", {}) | config.get("options", {})
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
    settings = Settings(**{k: v for k, v in merged.items() if k in _SETTINGS})
    method_options = kind.config_class(**{k: v for k, v in merged.items() if k in options})
    queue = given.get("queue")
    if isinstance(queue, int) and 0 < queue < settings.batch_size:
        raise UserError(
            f"--queue {queue}: a batch of {settings.batch_size} would not fit into it; take at least as many"
        )
    return settings, method_options


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
    """
    if len(kind.modalities) == 1:
        return kind.modalities[0]
    found = open_source(data, split="all").modality
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
