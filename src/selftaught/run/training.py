"""Beginning a run, or going on with one: options, data and folder come together in a job, which is then trained."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from torch import nn

from selftaught import catalog
from selftaught._words import SEVERAL, typed
from selftaught.data import Source
from selftaught.data.formats.volumes import kind_by_shape
from selftaught.engine.loader import check_batch_size
from selftaught.engine.trainer import check_trainer
from selftaught.errors import UserError
from selftaught.networks import name_module
from selftaught.run import configuration, locks, outputs, own_views, samples, watching
from selftaught.run.announcing import plan_lines
from selftaught.run.initialising import encoder_options, original_facts, same_pixels, transformed
from selftaught.run.job import Job, fit_batch, fit_to_data
from selftaught.run.layout import (
    Layout,
    environment,
    forget_folder,
    is_free,
    new_folder,
    write_yaml,
)
from selftaught.run.ranks import is_first
from selftaught.run.rehearsing import lines
from selftaught.run.stages import train_job
from selftaught.run.tasks import facts_of, open_tasks, same_tasks
from selftaught.run_settings import Settings

_FREE = {"workers", "checkpoint_minutes", "checkpoint_steps", "loggers"}
"""Settings that may differ when a run goes on."""
_PYTHON = {"callbacks", "trainer", "finish_now"}
"""What a call brings that is in no configuration."""


def start(
    method: str,
    data: Any = None,
    *,
    config: str | Path | dict[str, Any] | None = None,
    quiet: bool = False,
    callbacks: list[Any] | None = None,
    trainer: dict[str, Any] | None = None,
    **options: Any,
) -> Path:
    """Begin a new run and train it to its end; returns its folder. See :func:`selftaught.train`."""
    check_trainer(trainer, callbacks)
    job, chosen = _prepared(method, data, config, quiet, options)
    job.trainer = trainer
    job.callbacks, job.folder = callbacks, new_folder(options.get("out"), method, job.source.name)
    job.settings.out = str(job.folder)
    content = configuration.complete(method, job.settings, job.config, job.facts)
    with locks.training_in(job.folder, out=True):
        if is_first() and not is_free(job.folder):  # since we looked
            raise UserError(f"--out {typed(job.folder)}: another process began a run there; choose another --out")
        job.plan = _plan(job, chosen)
        try:
            if is_first():
                write_yaml(Layout(job.folder).config, content | {"environment": environment()})
            return train_job(job)
        except Exception:
            _clear_failed_start(job.folder)
            raise
        finally:
            forget_folder()


def rehearse(
    method: str, data: Any = None, *, config: str | Path | dict[str, Any] | None = None, **options: Any
) -> list[str]:
    """What a run would be, a line each; nothing is trained or written. See :func:`selftaught.rehearse`."""
    job, chosen = _prepared(method, data, config, True, options)
    job.plan = _plan(job, chosen)
    return lines(job)


def _plan(job: Job, chosen: str) -> list[str]:
    """What to say before training begins."""
    labels = not outputs.of(job.kind.output).hint.startswith("--clean")
    beside = {role: job.sources[role] for role in job.facts.get("beside", ())}
    return plan_lines(job.kind.slug, job.source, job.settings, job.config, job.folder, chosen, labels, beside)


def _prepared(
    method: str, data: Any, config: str | Path | dict[str, Any] | None, quiet: bool, options: dict[str, Any]
) -> tuple[Job, str]:
    """All that training takes but a folder, and why the preset was taken."""
    from selftaught import methods

    kind = methods.get(method)
    given = {k: name_module(v) if isinstance(v, nn.Module) else v for k, v in options.items() if v is not None}
    if "views" in given and not hasattr(kind.config_class, "views"):
        given["own_views"] = given.pop("views")
    own = own_views.described(given.pop("own_views")) if "own_views" in given else None
    base = configuration.base(config, data)
    streams = dict((base or {}).get("settings", {}).get("streams") or {})
    streams |= {role: given.pop(role) for role in kind.roles if role in given}
    original = transformed(kind, given.get("init") or (base or {}).get("settings", {}).get("init"))
    if original is not None and base is None:
        given = kind.inherits(original) | given
    safe = _safe_start(kind, given, base)
    given |= {"preset": safe} if safe else {}
    validation = _named_validation(kind, given)
    unnamed = data is None
    if data is None:
        data = (base or {}).get("settings", {}).get("data") or kind.default_source(original)
    modality = configuration.modality_of(kind, data)
    name = _named(data)
    if given.get("init") and base is None and hasattr(kind.config_class, "encoder") and "encoder" not in given:
        given = encoder_options(given["init"], texts=kind.output == "image-text") | given
    named = {role: str(getattr(spec, "name", spec)) for role, spec in streams.items()}
    settings, method_config = configuration.resolve(kind, modality, given | {"data": str(name)}, base)
    settings.streams = named
    if settings.steps is None and settings.epochs is None:
        raise UserError("how long to train is not given: use --epochs or --steps")
    sources = kind.arranged(samples.streams(kind, data, modality, settings, streams), method_config)
    source = next(iter(sources.values()))
    if "volume" in kind.modalities and (guessed := kind_by_shape(data)[1]) and len(kind.modalities) > 1:
        source.notes = [*source.notes, guessed]
    facts = samples.facts(source, kind.pixels)
    if original is not None:
        facts |= original_facts(kind, original, source, same=unnamed)
    elif settings.init and kind.output == "image-text":
        facts |= same_pixels(settings.init, facts["channels"])
    prints = facts["fingerprints"] = {role: one.fingerprint() for role, one in sources.items()}
    further = [role for role in sources if prints[role] != next(iter(prints.values()))]  # not the first one's once more
    if further:
        facts["beside"] = {role: {"name": sources[role].name, "samples": len(sources[role])} for role in further}
    if own or (base or {}).get("data", {}).get("views"):
        facts["views"] = own or base["data"]["views"]  # type: ignore[index]
    watching.check(kind, settings, list(sources))
    watched = watching.open_watched(kind, validation, method_config, settings, facts)
    if watched is not None:
        facts["validation"] = watched.fingerprint()
    tasks = open_tasks(kind, data, source, settings)
    if tasks:
        facts["tasks"] = facts_of(tasks)
    fit_to_data(method_config, facts)
    if given.get("batch_size") is None and "batch_size" not in (base or {}).get("settings", {}):
        fit_batch(settings, source, quiet)
    check_batch_size(source, settings.batch_size, kind.compares)
    chosen = "" if given.get("preset") or base else "the default on this machine"
    chosen = "the default with --init, so that little is forgotten" if safe else chosen
    return Job(Path(), kind, settings, method_config, facts, sources, data, quiet, watched=watched, tasks=tasks), chosen


def _named_validation(kind: type[Any], given: dict[str, Any]) -> Any:
    """Take note of what ``validation`` was given as, and call it by its name in the options; None where it has none."""
    if "validation" not in given or hasattr(kind.config_class, "validation"):
        return None
    value = given["validation"]
    given["validation"] = _as_text(value)
    return None if isinstance(value, float | int | str) else value


def _named(data: Any) -> str:
    """What the configuration calls a source: what opens it again where that is text, else its name."""
    if isinstance(data, list | tuple) and data and all(isinstance(one, str | Path) for one in data):
        return SEVERAL.join(map(str, data))
    return str(data if isinstance(data, str | Path) else getattr(data, "name", type(data).__name__))


def _safe_start(kind: type[Any], given: dict[str, Any], base: dict[str, Any] | None) -> str:
    """The preset for a model of images and texts that is trained further, where no preset was asked for."""
    further = given.get("init") and not given.get("preset") and base is None and kind.output == "image-text"
    return "fine-tune" if further and "fine-tune" in catalog.presets(kind.slug) else ""


def _clear_failed_start(folder: Path) -> None:
    """Take away the folder of a run that failed before anything was saved, so that the corrected command finds no
    remains of it.
    """
    if is_first() and not any(folder.rglob("*.ckpt")) and not Layout(folder).weights.exists():
        shutil.rmtree(folder, ignore_errors=True)


def go_on(
    path: str | Path,
    data: Any = None,
    *,
    method: str | None = None,
    quiet: bool = False,
    callbacks: list[Any] | None = None,
    trainer: dict[str, Any] | None = None,
    finish_now: bool = False,
    **options: Any,
) -> Path:
    """Resume an interrupted run to its end; its configuration is that of its folder.

    Args:
        path: its folder.
        data: its samples, where they have no name by which they could be opened again.
        method: what the caller takes it for.
        quiet: no progress bar.
        callbacks: further Lightning callbacks.
        trainer: further options of Lightning's trainer.
        finish_now: train no more: settle averaged or best weights and write what the run delivers, as it stands.
        **options: settings that may differ.

    Raises:
        UserError: not a run folder, or another method's; another process trains in it; data that changed; options
            other than ``workers`` and the like, which may differ.
    """
    check_trainer(trainer, callbacks)
    content = Layout(path).read_config()
    if method is not None and catalog.card(method).slug != content["method"]:
        raise UserError(f"{path} is a run of {content['method']}, not of {method}; leave the method out to go on")
    fixed = [name for name, value in options.items() if value is not None and name not in _FREE | {"out"}]
    if fixed:
        raise UserError(f"--resume goes on as the run was begun; leave out --{fixed[0].replace('_', '-')}")
    with locks.training_in(Path(path)):
        job = _taken_up(Path(path), content, data, options)
        job.quiet, job.callbacks, job.trainer, job.finish_now = quiet, callbacks, trainer, finish_now
        if finish_now and job.tasks:
            raise UserError(f"--finish-now: {path} is a stream of tasks; each of those finished is a run of its own")
        return train_job(job)


def _taken_up(path: Path, content: dict[str, Any], data: Any, options: dict[str, Any]) -> Job:
    """The job of a run that was begun, on the data that it began with."""
    from selftaught import methods

    kind = methods.get(content["method"])
    changed = {name: options[name] for name in _FREE if options.get(name) is not None}
    settings = Settings(**content["settings"] | changed)
    named, data = data is not None, settings.data if data is None else data
    config = configuration.options_of(kind, content["options"], path)
    given = samples.streams(kind, data, content["data"]["modality"], settings, dict(settings.streams))
    sources = kind.arranged(given, config)
    _same_data(sources, content["data"], settings, named=named)
    watched = watching.open_watched(kind, None, config, settings, content["data"])
    if watched is not None and watched.fingerprint() != content["data"].get("validation"):
        raise UserError(f"--validation {watched.name}: its files are not those that the run began with")
    tasks = open_tasks(kind, data, next(iter(sources.values())), settings)
    same_tasks(tasks, content["data"].get("tasks", []))
    return Job(path, kind, settings, config, content["data"], sources, data, watched=watched, tasks=tasks)


def begun(options: dict[str, Any]) -> tuple[Path | None, dict[str, Any]]:
    """What ``resume="auto"`` means: the run that was begun in ``out`` with these options, or none.

    Returns:
        its folder, and the options that may differ when it goes on; or None, and the options as they are.

    Raises:
        UserError: no ``out``, or the run there was begun with other options.
    """
    if options.get("out") is None:
        raise UserError("--resume auto goes on with the run in --out, or starts it there: give --out FOLDER")
    layout = Layout(options["out"])
    if not layout.config.exists():
        return None, options
    content = layout.read_config()
    known = content["settings"] | content["options"]
    for name, value in options.items():
        if name in _FREE | {"out"} or value is None or name not in known:
            continue
        value = _as_text(value) if isinstance(known[name], str) else value
        if known[name] != value:
            raise UserError(f"{layout.path} was begun with {name}={known[name]!r}, not {value!r}; choose another --out")
    return layout.path, {name: value for name, value in options.items() if name in _FREE | _PYTHON}


def _as_text(value: Any) -> str:
    """How a configuration writes an option that was given as a network, a path, a number or a source."""
    if isinstance(value, nn.Module):
        return name_module(value)
    return str(value) if isinstance(value, str | Path | float | int) else _named(value)


def branch_options(options: dict[str, Any]) -> dict[str, Any]:
    """What ``anneal=RUN`` takes besides: steps and the folder.

    Raises:
        UserError: any other option.
    """
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if name not in ("anneal", "steps", "out"):
            raise UserError(f"--anneal goes on with the run's own options; leave out --{name.replace('_', '-')}")
    return {"run": given["anneal"], "steps": given.get("steps"), "out": given.get("out")}


def _same_data(sources: dict[str, Source], facts: dict[str, Any], settings: Settings, named: bool) -> None:
    """Refuse to go on with other data than the run began with.

    Args:
        sources: the data now, by role.
        facts: of the data that it began with.
        settings: that it began with.
        named: whether ``--data`` was given to go on with.

    Raises:
        UserError: other samples, names, labels or content.
    """
    main = next(iter(sources))
    for role, source in sources.items():
        what, mend = source.name, "a run can only go on with the same data"
        if role == main and named:
            what, mend = f"--data {source.name}", f"leave it out, and the run goes on with {settings.data}"
        if role == main and len(source) != facts["samples"]:
            raise UserError(f"{what} has {len(source)} samples, {facts['samples']} when the run began: {mend}")
        if facts.get("fingerprints", {}).get(role, "") not in ("", source.fingerprint()):
            raise UserError(
                f"{what}: its files, their names, order or labels are not those that the run began with; {mend}, or "
                "start a new one with --init"
            )
