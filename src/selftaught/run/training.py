"""Training a run: resolve, build, fit stage after stage, keep what a user takes away."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from selftaught import catalog
from selftaught import data as data_room
from selftaught.data import Scale, Source
from selftaught.engine.checkpoint import read_checkpoint
from selftaught.engine.fit import fit
from selftaught.engine.loader import check_batch_size
from selftaught.engine.method import Method
from selftaught.engine.reselection import Reselection, ReselectionOptions
from selftaught.engine.stages import Stage
from selftaught.errors import UserError
from selftaught.run import configuration, outputs, own_views, samples
from selftaught.run.announcing import plan_lines
from selftaught.run.features import embed
from selftaught.run.initialising import encoder_options, original_facts, start_from, transformed
from selftaught.run.layout import (
    Layout,
    environment,
    file_digest,
    new_folder,
    read_yaml,
    write_json,
    write_tensors,
    write_yaml,
)
from selftaught.run.ranks import is_first
from selftaught.run.tasks import Task, facts_of, learn, open_tasks, same_tasks
from selftaught.run_settings import Settings

_KNN_BANK, _KNN_TEST = 2000, 1000
_FREE = {"workers", "checkpoint_minutes", "checkpoint_steps", "loggers"}
"""Settings that may differ when a run goes on."""


@dataclass
class Job:
    """All that training a run takes."""

    folder: Path
    kind: type[Method]
    settings: Settings
    config: Any
    facts: dict[str, Any]
    sources: dict[str, Source]
    data: Any
    quiet: bool = False
    callbacks: list[Any] | None = None
    tasks: list[Task] = field(default_factory=list)
    """Of a stream of tasks; empty for an ordinary run."""
    plan: list[str] = field(default_factory=list)
    """What to say before training begins."""

    @property
    def source(self) -> Source:
        """The samples of the first stream."""
        return next(iter(self.sources.values()))


def start(
    method: str,
    data: Any = None,
    *,
    config: str | Path | dict[str, Any] | None = None,
    quiet: bool = False,
    callbacks: list[Any] | None = None,
    **options: Any,
) -> Path:
    """Begin a new run and train it to its end; returns its folder. See :func:`selftaught.train`."""
    from selftaught import methods

    kind = methods.get(method)
    given = {k: v for k, v in options.items() if v is not None}
    own = own_views.described(given.pop("own_views")) if "own_views" in given else None
    base = read_yaml(Path(config)) if isinstance(config, str | Path) else config
    streams = dict((base or {}).get("settings", {}).get("streams") or {})
    streams |= {role: given.pop(role) for role in kind.roles if role in given}
    original = transformed(kind, given.get("init") or (base or {}).get("settings", {}).get("init"))
    if original is not None and base is None:
        given = kind.inherits(original) | given
    unnamed = data is None
    if data is None:
        data = (base or {}).get("settings", {}).get("data") or kind.default_source(original)
    modality = configuration.modality_of(kind, data)
    name = data if isinstance(data, str | Path) else getattr(data, "name", type(data).__name__)
    if given.get("init") and base is None and hasattr(kind.config_class, "encoder") and "encoder" not in given:
        given = encoder_options(given["init"]) | given
    named = {role: str(getattr(spec, "name", spec)) for role, spec in streams.items()}
    settings, method_config = configuration.resolve(kind, modality, given | {"data": str(name)}, base)
    settings.streams = named
    sources = kind.arranged(samples.streams(kind, data, modality, settings, streams), method_config)
    source = next(iter(sources.values()))
    facts = samples.facts(source, kind.pixels)
    if original is not None:
        facts |= original_facts(kind, original, source, same=unnamed)
    facts["fingerprints"] = {role: one.fingerprint() for role, one in sources.items()}
    if own or (base or {}).get("data", {}).get("views"):
        facts["views"] = own or base["data"]["views"]  # type: ignore[index]
    tasks = open_tasks(kind, data, source, settings)
    if tasks:
        facts["tasks"] = facts_of(tasks)
    _fit_to_data(method_config, facts)
    if given.get("batch_size") is None and "batch_size" not in (base or {}).get("settings", {}):
        _fit_batch(settings, source, quiet)
    check_batch_size(source, settings.batch_size, kind.compares)
    folder = new_folder(options.get("out"), method, source.name)
    settings.out = str(folder)
    content = configuration.complete(method, settings, method_config, facts)
    if is_first():
        write_yaml(Layout(folder).config, content | {"environment": environment()})
    job = Job(folder, kind, settings, method_config, facts, sources, data, quiet, callbacks, tasks)
    chosen = "" if given.get("preset") or base else "the default on this machine"
    job.plan = plan_lines(method, source, settings, method_config, folder, chosen)
    try:
        return _train(job)
    except UserError:
        _clear_failed_start(folder)
        raise


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
    **options: Any,
) -> Path:
    """Resume an interrupted run to its end; its configuration is that of its folder.

    Raises:
        UserError: not a run folder, or another method's; data that changed; options other than ``workers`` and the
            like, which may differ.
    """
    from selftaught import methods

    layout = Layout(path)
    content = layout.read_config()
    if method is not None and catalog.card(method).slug != content["method"]:
        raise UserError(f"{path} is a run of {content['method']}, not of {method}; leave the method out to go on")
    fixed = [name for name, value in options.items() if value is not None and name not in _FREE | {"out"}]
    if fixed:
        raise UserError(f"--resume goes on as the run was begun; leave out --{fixed[0].replace('_', '-')}")
    kind = methods.get(content["method"])
    changed = {name: options[name] for name in _FREE if options.get(name) is not None}
    settings = Settings(**content["settings"] | changed)
    data = settings.data if data is None else data
    config = kind.config_class(**content["options"])
    given = samples.streams(kind, data, content["data"]["modality"], settings, dict(settings.streams))
    sources = kind.arranged(given, config)
    _same_data(sources, content["data"], settings)
    tasks = open_tasks(kind, data, next(iter(sources.values())), settings)
    same_tasks(tasks, content["data"].get("tasks", []))
    return _train(Job(Path(path), kind, settings, config, content["data"], sources, data, quiet, callbacks, tasks))


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
        if known[name] != value:
            raise UserError(f"{layout.path} was begun with {name}={known[name]!r}, not {value!r}; choose another --out")
    return layout.path, {name: value for name, value in options.items() if name in _FREE}


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


def _same_data(sources: dict[str, Source], facts: dict[str, Any], settings: Settings) -> None:
    """Refuse to go on with other data than the run began with.

    Raises:
        UserError: other samples, names, labels or content.
    """
    mend = "a run can only go on with the same data"
    source = next(iter(sources.values()))
    if len(source) != facts["samples"]:
        raise UserError(f"{settings.data} has {len(source)} samples now, {facts['samples']} when the run began: {mend}")
    for role, known in facts.get("fingerprints", {}).items():
        if sources[role].fingerprint() != known:
            raise UserError(
                f"{sources[role].name}: its files, their names, order or labels are not those that the run began with; "
                f"{mend}, or start a new one with --init"
            )


def _packed_side(config: Any, facts: dict[str, Any]) -> int:
    """Shorter side to pack at: room for crops of the views' size, never above the images' own."""
    return int(min(facts["short_side"], max(256, 2 * getattr(config, "image_size", 256))))


def _fit_batch(settings: Settings, source: Source, quiet: bool) -> None:
    """Lower a batch size that nobody asked for to what few samples allow: a power of two, two batches at least."""
    processes = settings.devices * settings.nodes
    if len(source) >= settings.batch_size * processes or len(source) < 4 * processes:
        return
    lowered = 1 << ((len(source) // (2 * processes)).bit_length() - 1)
    if not quiet:
        print(
            f"{source.name} has {len(source)} samples: batches of {lowered} in place of {settings.batch_size} "
            "(--batch-size chooses)",
            file=sys.stderr,
        )
    settings.batch_size = lowered


def _fit_to_data(config: Any, facts: dict[str, Any]) -> None:
    """Settle what was left to the data, and refuse what it can't give."""
    if getattr(config, "class_names", ()) is None and facts.get("classes"):
        config.class_names = list(facts["classes"])
    if getattr(config, "worn", None) == "" and facts.get("devices"):
        config.worn = ",".join(facts["devices"])
    short = facts.get("short_side")
    if short is None:
        return
    if getattr(config, "image_size", None) == 0:
        config.image_size = 32 if short <= 40 else 64
    patch = getattr(config, "patch", None)
    if isinstance(patch, int) and short < patch and hasattr(config, "width"):
        raise UserError(f"{facts['name']}: images of {short} pixels are smaller than --patch {patch}")


def build(kind: type[Method], config: Any, facts: dict[str, Any]) -> Method:
    """The method for this data, its pixel statistics set."""
    method: Method = kind(
        config,
        channels=facts["channels"],
        length=facts.get("length"),
        samples=facts["samples"],
        classes=facts.get("class_count", 0),
        modality=facts.get("modality"),
    )
    if "mean" in facts:
        method.pixel_mean.copy_(torch.tensor(facts["mean"]))
        method.pixel_std.copy_(torch.tensor(facts["std"]))
        method.value_range = Scale(facts.get("value_range"), facts.get("depth"))
    if facts.get("views"):
        own_views.install(method, facts["views"])
    return method


def curate(method: Method, text: str) -> None:
    """Let a method choose its samples as it learns (``--curate``).

    Raises:
        UserError: it chooses already, or has no features to choose by; an option that there is not.
    """
    if method.reselection is not None:
        raise UserError(f"--curate: {method.slug} chooses its samples by options of its own, such as --rho")
    if method.output not in ("embedding", "classes"):
        raise UserError(f"--curate: {method.slug} gives no features to choose by; leave it out")
    method.reselection = Reselection(ReselectionOptions.of(text))


# ---- tasks -----------------------------------------------------------------------------------------------------
def _learn_tasks(job: Job, layout: Layout) -> Path:
    """Train a stream of tasks, each a run of its own."""
    say = _teller(job.quiet)
    for line in job.plan:
        say(line)

    def build_anew() -> Method:
        torch.manual_seed(job.settings.seed)
        method = build(job.kind, job.config, job.facts)
        method.survey(job.sources)
        if job.settings.init:
            start_from(method, job.settings.init)
        return method

    def fit_task(method: Method, task: Task, place: Layout, number: int, callbacks: list[Any]) -> dict[str, Any]:
        settings = dataclasses.replace(job.settings, then=None, class_tasks=0, continual="none", data=task.name)
        if is_first():
            facts = job.facts | {"samples": len(task.learn), "name": task.name, "task": number}
            write_yaml(place.config, configuration.complete(job.kind.slug, settings, job.config, facts))
        method.enter_stage(method.stages[0])
        began = time.monotonic()
        done = fit(
            method, {method.roles[0]: task.learn}, settings, place.path, title=f"{method.slug} task {number + 1}",
            quiet=job.quiet, callbacks=[*(job.callbacks or []), *callbacks], order=task.order,
        )  # fmt: skip
        return done | {"seconds": round(time.monotonic() - began, 1)}

    def save(place: Layout, method: Method) -> None:
        if is_first():
            save_deliverable(place, method, job.facts)

    learn(build_anew, fit_task, save, layout, job.tasks, job.settings, say)
    return job.folder


# ---- stages --------------------------------------------------------------------------------------------------------
def _train(job: Job) -> Path:
    layout = Layout(job.folder)
    if job.tasks:
        return _learn_tasks(job, layout)
    state = layout.read_state()
    torch.manual_seed(job.settings.seed)
    method = build(job.kind, job.config, job.facts)
    if job.settings.curate:
        curate(method, job.settings.curate)
    method.survey(job.sources)
    if job.settings.init:
        start_from(method, job.settings.init)
    for line in job.plan:
        _teller(job.quiet)(line)
    sources = _cached(job)
    scorer = None
    if job.settings.knn_every > 0 and job.kind.compares:
        parts = samples.labelled_parts(job.data, job.facts["modality"], job.settings)
        scorer = _knn_scorer(parts, _teller(job.quiet)) if parts else None
    for number, stage in enumerate(method.stages):
        last = number == len(method.stages) - 1
        place = layout.stage(stage, several=len(method.stages) > 1)
        if stage in state["stages"] and not (last and deliverable_problem(layout)):
            if not last:
                _load_stage(method, place.final)
            continue
        if stage in state["stages"] and not layout.checkpoint(stage).exists():
            raise UserError(f"{deliverable_problem(layout)}, and its last checkpoint is gone; train again")
        method.enter_stage(stage)
        began = time.monotonic()
        done = _fit_stage(job, method, sources, stage, place, scorer)
        done["seconds"] = round(time.monotonic() - began, 1)
        state["stages"][stage] = done
        if not last:
            save_state(method, place.final)
        if is_first():
            if place.path != layout.path:
                save_deliverable(place, method, job.facts)
            if last:
                save_deliverable(layout, method, job.facts)
            write_json(layout.state, state)
    return job.folder


def _fit_stage(
    job: Job, method: Method, sources: dict[str, Source], stage: str, place: Layout, scorer: Any
) -> dict[str, Any]:
    """Train one stage in its folder: an ordinary run with settings of its own."""
    plan = method.stage_plan(stage)
    settings = stage_settings(job.settings, plan)
    roles = plan.roles or job.kind.roles
    read, held_out = {role: sources[role] for role in roles}, None
    if plan.watches and plan.validation:
        first = roles[0]
        read[first], held_out = samples.hold_out(sources[first], plan.validation, settings.seed)
    several = len(method.stages) > 1
    if several and is_first():
        place.path.mkdir(parents=True, exist_ok=True)
        content = configuration.complete(method.slug, settings, job.config, job.facts | {"stage": stage})
        write_yaml(place.config, content)
    number = method.stages.index(stage)
    title = f"{method.slug} {number + 1}/{len(method.stages)} {stage}" if several else method.slug
    done = fit(
        method, read, settings, place.path, plan=plan, held_out=held_out, knn=scorer, title=title, quiet=job.quiet,
        callbacks=job.callbacks,
    )  # fmt: skip
    if several and is_first():
        write_json(place.state, {"stages": {stage: done}})
    return done


def stage_settings(settings: Settings, plan: Stage) -> Settings:
    """The run's settings with those that a stage changes.

    Raises:
        UserError: the plan names a setting that there is not.
    """
    known = {field.name for field in dataclasses.fields(Settings)}
    for name in plan.settings:
        if name not in known:
            raise UserError(f"a stage can't change {name!r}: it is no setting of a run")
    changed = dict(plan.settings)
    if changed.get("epochs") is not None and "steps" not in changed:
        changed["steps"] = None
    return dataclasses.replace(settings, **changed)


def _cached(job: Job) -> dict[str, Source]:
    """The sources, packed into memory-mapped files where that was asked for."""
    if not job.settings.cache:
        return job.sources
    folder, side = data_room.cache_folder() / "packed", _packed_side(job.config, job.facts)
    return {
        role: data_room.pack(source, side, folder) if source.modality == "image" else source
        for role, source in job.sources.items()
    }


def save_state(method: Method, path: Path) -> None:
    """Write the method's whole state at the end of a stage: what the next one starts from.

    Raises:
        UserError: it can't be written.
    """
    state = method.state_dict()  # a matter of all processes where a method spreads its state over them
    if not is_first():
        return
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, part)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UserError(f"{path}: can't be written ({error}); free some space and --resume") from error


def _load_stage(method: Method, path: Path) -> None:
    if not path.exists():
        raise UserError(f"{path} is gone: the run can't go on from a finished stage without it")
    method.load_state_dict(read_checkpoint(path))


def save_deliverable(layout: Layout, method: Method, facts: dict[str, Any]) -> None:
    """Write encoder.safetensors, and beside it how to build and normalise the encoder."""
    tensors = {k: v.detach().cpu().contiguous() for k, v in method.deliverable().state_dict().items()}
    sealed = write_tensors(layout.weights, tensors)
    write_json(layout.card, outputs.of(method.output).card(method, facts) | {"sha256": sealed})


def deliverable_problem(layout: Layout) -> str:
    """What is wrong with what a finished run delivers, naming the file; empty where it is what was written."""
    if not layout.weights.is_file():
        return f"{layout.weights} is missing"
    card = layout.read_card()
    if not card:
        return f"{layout.card} is missing"
    if card.get("sha256") not in (None, file_digest(layout.weights)):
        return f"{layout.weights} is damaged (not what was written)"
    return ""


def _knn_scorer(parts: tuple[Source, Source], say: Callable[[str], None]) -> Any:
    """A function of the method: k-NN accuracy of some test samples against some training samples; None without any."""
    from selftaught.evaluation import monitor, monitor_rows

    known, asked, problem = monitor_rows(parts[0].labels, parts[1].labels, bank=_KNN_BANK, test=_KNN_TEST)
    if problem:
        say(f"no k-NN while training: {problem}")
        return None
    bank, test = parts[0].subset(known), parts[1].subset(asked)

    def score(trained: Method) -> float | None:
        was = trained.training
        trained.eval()
        with torch.no_grad():
            x, y = embed(trained, bank, workers=0)[:2]
            tx, ty = embed(trained, test, workers=0)[:2]
        trained.train(was)
        if y is None or ty is None:
            return None
        accuracy, why = monitor(x, y, tx, ty)
        if why:
            say(f"no k-NN here: {why}")
        return accuracy

    return score


def _teller(quiet: bool) -> Callable[[str], None]:
    """Print lines for the terminal, from the first process alone, unless the run is quiet."""

    def say(line: str) -> None:
        if not quiet and is_first():
            print(line, file=sys.stderr, flush=True)

    return say
