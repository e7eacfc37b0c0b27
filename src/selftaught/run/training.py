"""Training a run: resolve, build, fit stage after stage, keep what a user takes away."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from selftaught import data as data_room
from selftaught.data import Modality, Source
from selftaught.engine.fit import fit
from selftaught.engine.loader import check_batch_size
from selftaught.engine.method import Method
from selftaught.errors import UserError
from selftaught.run import configuration, samples
from selftaught.run.features import embed
from selftaught.run.initialising import encoder_options, start_from
from selftaught.run.layout import Layout, environment, new_folder, read_yaml, write_json, write_yaml
from selftaught.run_settings import Settings

_KNN_BANK, _KNN_TEST = 2000, 1000


def start(
    method: str,
    data: Any = None,
    *,
    config: str | Path | dict[str, Any] | None = None,
    quiet: bool = False,
    **options: Any,
) -> Path:
    """Begin a new run and train it to its end; returns its folder. See :func:`selftaught.train`."""
    from selftaught import methods

    kind = methods.get(method)
    given = {k: v for k, v in options.items() if v is not None}
    base = read_yaml(Path(config)) if isinstance(config, str | Path) else config
    if data is None:
        data = (base or {}).get("settings", {}).get("data") or _default_data(kind)
    modality = configuration.modality_of(kind, data)
    name = data if isinstance(data, str | Path) else getattr(data, "name", type(data).__name__)
    if given.get("init") and base is None and hasattr(kind.config_class, "encoder") and "encoder" not in given:
        given = encoder_options(given["init"]) | given
    settings, method_config = configuration.resolve(kind, modality, given | {"data": str(name)}, base)
    source = samples.training_source(data, modality, settings)
    facts = samples.facts(source, kind.output)
    _fit_to_data(method_config, facts, kind)
    if given.get("batch_size") is None and "batch_size" not in (base or {}).get("settings", {}):
        _fit_batch(settings, source, quiet)
    check_batch_size(source, settings.batch_size, kind.output)
    folder = new_folder(options.get("out"), method, source.name)
    settings.out = str(folder)
    content = configuration.complete(method, settings, method_config, facts)
    if os.environ.get("LOCAL_RANK", "0") == "0":
        write_yaml(Layout(folder).config, content | {"environment": environment()})
    return _train(folder, kind, settings, method_config, facts, source, data, modality, quiet)


def go_on(path: str | Path, data: Any = None, *, quiet: bool = False, **options: Any) -> Path:
    """Resume an interrupted run to its end; its configuration is that of its folder.

    Raises:
        UserError: not a run folder; options other than ``devices``, ``workers`` and the like, which may differ.
    """
    from selftaught import methods

    layout = Layout(path)
    content = layout.read_config()
    free = {"workers", "checkpoint_minutes", "checkpoint_steps", "loggers"}
    fixed = [name for name, value in options.items() if value is not None and name not in free | {"out"}]
    if fixed:
        raise UserError(f"--resume goes on as the run was begun; leave out --{fixed[0].replace('_', '-')}")
    kind = methods.get(content["method"])
    settings = Settings(**content["settings"])
    for name in free:
        if options.get(name) is not None:
            setattr(settings, name, options[name])
    method_config = kind.config_class(**content["options"])
    data = settings.data if data is None else data
    modality = content["data"]["modality"]
    source = samples.training_source(data, modality, settings)
    if len(source) != content["data"]["samples"]:
        raise UserError(
            f"{settings.data} has {len(source)} samples now, {content['data']['samples']} when the run began: "
            "a run can only go on with the same data"
        )
    return _train(Path(path), kind, settings, method_config, content["data"], source, data, modality, quiet)


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


def _default_data(kind: type[Method]) -> str:
    return {"series": "watch"}.get(kind.modality, "photos:whole" if kind.output == "image" else "photos")


def _fit_to_data(config: Any, facts: dict[str, Any], kind: type[Method]) -> None:
    """Settle what was left to the data, and refuse what it can't give."""
    if getattr(config, "image_size", None) == 0:
        config.image_size = 32 if facts["short_side"] <= 40 else 64
    patch = getattr(config, "patch", None)
    if patch and facts["short_side"] < patch:
        raise UserError(f"{facts['name']}: images of {facts['short_side']} pixels are smaller than --patch {patch}")


def build(kind: type[Method], config: Any, facts: dict[str, Any]) -> Method:
    """The method for this data, its pixel statistics set."""
    method: Method = kind(
        config,
        channels=facts["channels"],
        length=facts.get("length"),
        samples=facts["samples"],
        classes=facts.get("class_count", 0),
    )
    if "mean" in facts:
        method.pixel_mean.copy_(torch.tensor(facts["mean"]))
        method.pixel_std.copy_(torch.tensor(facts["std"]))
    method.value_range = facts.get("value_range")
    return method


def _train(
    folder: Path,
    kind: type[Method],
    settings: Settings,
    config: Any,
    facts: dict[str, Any],
    source: Source,
    data: Any,
    modality: Modality,
    quiet: bool,
) -> Path:
    layout = Layout(folder)
    state = layout.read_state()
    torch.manual_seed(settings.seed)
    method = build(kind, config, facts)
    if settings.init:
        start_from(method, Path(settings.init))
    if settings.cache and modality == "image":
        source = data_room.pack(source, _packed_side(config, facts), data_room.cache_folder() / "packed")
    parts = samples.labelled_parts(data, modality, settings) if kind.output != "image" else None
    scorer = _knn_scorer(parts, method) if parts and settings.knn_every > 0 else None
    for number, stage in enumerate(method.stages):
        method.enter_stage(stage)
        checkpoint = folder / "checkpoints" / f"{stage}.ckpt"
        if stage in state["stages"]:
            _load_stage(method, checkpoint)
            continue
        began = time.monotonic()
        title = kind.slug if len(method.stages) == 1 else f"{kind.slug} {number + 1}/{len(method.stages)} {stage}"
        done = fit(method, source, settings, folder, knn=scorer, title=title, quiet=quiet)
        averaged = done.pop("averaged")
        if averaged is not None:
            averaged.copy_to(method)
        done["seconds"] = round(time.monotonic() - began, 1)
        state["stages"][stage] = done
        if os.environ.get("LOCAL_RANK", "0") == "0":
            if number == len(method.stages) - 1:
                save_deliverable(layout, method, config, facts)
            write_json(layout.state, state)
    return folder


def _load_stage(method: Method, checkpoint: Path) -> None:
    if not checkpoint.exists():
        raise UserError(f"{checkpoint} is gone: the run can't go on from a finished stage without its checkpoint")
    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    method.load_state_dict(content["state_dict"])


def save_deliverable(layout: Layout, method: Method, config: Any, facts: dict[str, Any]) -> None:
    """Write encoder.safetensors, and beside it how to build and normalise the encoder."""
    part = layout.weights.with_suffix(".part")
    tensors = {k: v.detach().cpu().contiguous() for k, v in method.deliverable().state_dict().items()}
    try:
        save_file(tensors, part)
        part.replace(layout.weights)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UserError(f"{layout.weights}: can't be written ({error}); free some space and --resume") from error
    card = {
        "method": method.slug,
        "output": method.output,
        "classes": facts.get("classes") if method.output == "classes" else None,
        "modality": facts["modality"],
        "channels": facts["channels"],
        "build": method.deliverable_spec(),
        "normalise": {"mean": facts.get("mean"), "std": facts.get("std"), "value_range": facts.get("value_range")},
        "image_size": getattr(config, "image_size", None),
        "length": facts.get("length"),
    }
    write_json(layout.card, card)


def _knn_scorer(parts: tuple[Source, Source], method: Method) -> Any:
    """A function of the method: k-NN accuracy of some test samples against some training samples."""
    from selftaught.evaluation import knn

    rng = np.random.default_rng(0)

    def some(source: Source, n: int) -> Source:
        return source if len(source) <= n else source.subset(np.sort(rng.permutation(len(source))[:n]))

    bank, test = some(parts[0], _KNN_BANK), some(parts[1], _KNN_TEST)

    def score(trained: Method) -> float:
        was = trained.training
        trained.eval()
        with torch.no_grad():
            x, y = embed(trained, bank, workers=0)[:2]
            tx, ty = embed(trained, test, workers=0)[:2]
        trained.train(was)
        trained.on_train_start()
        assert y is not None
        assert ty is not None
        return knn(x, y, tx, ty, k=20).numbers["accuracy"].mean

    return score
