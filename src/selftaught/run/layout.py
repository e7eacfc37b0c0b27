"""A run on disk: what lies where, written atomically."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from selftaught._paths import ON_DISK, part_of
from selftaught._reading import json_of, text_of, yaml_text
from selftaught._words import typed
from selftaught.errors import UserError, first_line, unwritten
from selftaught.run import locks
from selftaught.run.ranks import is_first, launch_id
from selftaught.run_settings import Settings

_PARTS: dict[str, type] = {"method": str, "settings": dict, "options": dict, "data": dict}
_FACTS = ("name", "modality", "samples", "channels")
_DONE = {"steps", "seconds", "skipped"}
_SETTINGS = {field.name for field in fields(Settings)}
_COPY = "take it from a copy of the run, or train again"


class Layout:
    """Paths of a run's folder."""

    def __init__(self, path: str | Path) -> None:
        if not isinstance(path, str | os.PathLike):
            raise UserError(f"{path!r} is no run: give the path of its folder")
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.weights = self.path / "encoder.safetensors"
        self.card = self.path / "encoder.json"
        self.metrics = self.path / "metrics.csv"
        self.skipped = self.path / "skipped.csv"
        self.state = self.path / "state.json"
        self.evaluation = self.path / "evaluation.json"
        self.features = self.path / "features.npz"
        self.report = self.path / "report.html"
        self.final = self.path / "checkpoints" / "final.pt"

    def stage(self, name: str, several: bool = True) -> Layout:
        """The folder of a stage: a run of its own below this one, or this one where there is a single stage."""
        return Layout(self.path / "stages" / name) if several else self

    def checkpoint(self, stage: str) -> Path:
        """The last checkpoint of a stage; in a stream of tasks that of the last task begun."""
        tasks = sorted((self.path / "tasks").glob("[0-9]*"), key=lambda path: int(path.name))
        if tasks:
            return Layout(tasks[-1]).checkpoint(stage)
        below = self.stage(stage)
        return (below if below.path.is_dir() else self).path / "checkpoints" / f"{stage}.ckpt"

    def read_config(self) -> dict[str, Any]:
        """The run's complete configuration.

        Raises:
            UserError: not a run folder, or its config.yaml can't be read.
        """
        if not self.path.exists():
            raise UserError(f"{self.path}: no such run folder")
        if not self.config.exists():
            raise UserError(f"{self.path}: not a run folder (it has no config.yaml)")
        content = read_yaml(self.config)
        for name, kind in _PARTS.items():
            if not isinstance(content.get(name), kind):
                raise UserError(f"{self.config}: damaged, or not a run's (its part {name!r} is missing); {_COPY}")
        missing = [name for name in _FACTS if name not in content["data"]]
        unknown = [name for name in content["settings"] if name not in _SETTINGS]
        if unknown:
            raise UserError(f"{self.config}: no setting {unknown[0]!r}: damaged, or of another version; {_COPY}")
        if missing:
            raise UserError(f"{self.config}: damaged ({missing[0]!r} is missing from the facts of the data); {_COPY}")
        return content

    def read_state(self) -> dict[str, Any]:
        """What is done: finished stages, steps, samples skipped, seconds."""
        if not self.state.exists():
            return {"stages": {}}
        mend = f"delete it and go on with: selftaught train --resume {typed(self.path)}"
        content = read_json(self.state, mend)
        stages = content.get("stages")
        if not isinstance(stages, dict) or not all(isinstance(s, dict) and s.keys() >= _DONE for s in stages.values()):
            raise UserError(f"{self.state}: damaged; {mend}")
        return content

    def read_card(self) -> dict[str, Any]:
        """How to build and normalise what the run delivers; empty where it was not written.

        Raises:
            UserError: it is damaged.
        """
        if not self.card.exists():
            return {}
        return read_json(self.card, f"delete it and write it again with: selftaught train --resume {typed(self.path)}")


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a csv file that may not be there.

    Raises:
        UserError: it can't be read.
    """
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            return list(csv.DictReader(file))
    except (OSError, csv.Error) as error:
        raise UserError(f"{path}: damaged ({str(error)[:60]}); delete it to go on without it") from error


def unusable(places: Iterable[Layout]) -> list[dict[str, str]]:
    """Name and reason of the samples that the stages of a run could not use, once each."""
    return list({row["name"]: row for place in places for row in read_rows(place.skipped)}.values())


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        UserError: missing file, broken YAML, or not a mapping.
    """
    try:
        content = yaml_text(text_of(path))
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML ({first_line(error)})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a run's configuration")
    return content


def read_json(path: Path, mend: str) -> dict[str, Any]:
    """Read a JSON mapping.

    Args:
        path: the file.
        mend: what to do where it is damaged.

    Raises:
        UserError: it can't be read, or is no mapping.
    """
    try:
        content = json_of(path)
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}); {mend}") from error
    except ValueError as error:
        raise UserError(f"{path}: damaged; {mend}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: damaged; {mend}")
    return content


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    Raises:
        UserError: it can't be written.
    """
    part = part_of(path)  # of this process: two may write the same file at once
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w", encoding="utf-8", errors=ON_DISK) as file:  # names as they are on disk
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise unwritten(path, error) from error


def write_yaml(path: Path, content: dict[str, Any]) -> None:
    """Write a mapping as YAML, keys in order."""
    write_text(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def write_json(path: Path, content: Any) -> None:
    """Write JSON."""
    write_text(path, json.dumps(content, indent=1))


def write_tensors(path: Path, tensors: dict[str, Any], metadata: dict[str, str] | None = None) -> str:
    """Write a .safetensors file whole or not at all.

    Returns:
        SHA-256 of its bytes, in hexadecimal.

    Raises:
        UserError: it can't be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    part = part_of(path)  # of this process: two may write the same file at once
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        mode = part.stat().st_mode  # by the umask, as of any other file; safetensors lets nobody else read
        save_file(tensors, part, metadata=metadata)
        part.chmod(mode)
        sealed = file_digest(part)
        part.replace(path)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        told = error if isinstance(error, OSError) else OSError(str(error))
        raise unwritten(path, told, "" if told.errno else "make room") from error
    return sealed


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def new_folder(out: str | None, method: str, data: str, fill: Callable[[Path], None] | None = None) -> Path:
    """The folder of a new run: ``out``, or a numbered one under ``runs/``; the same for all processes of a run.

    Args:
        out: where it is to be.
        method: its slug, for the name of a numbered one.
        data: name of the source, likewise.
        fill: puts into the folder what the run begins with; the first process calls it, the others wait until it is
            done.

    Raises:
        UserError: ``out`` holds something already, or another process trains in it; the first process made no folder
            within two minutes.
    """
    given, meeting = os.environ.get("SELFTAUGHT_RUN_FOLDER"), launch_id()
    if not is_first():
        return Path(given) if given and meeting is None else Path(_awaited(_note()))
    stem = re.sub(r"[^A-Za-z0-9.]+", "-", f"{method}-{Path(data).name or data}").strip("-")[:60]
    path = Path("runs") / stem if out is None else Path(out)
    if out is not None:
        locks.refuse_if_training(path)
        if not is_free(path):
            more = f", or go on with --resume {typed(out)}" if (path / "config.yaml").exists() else ""
            raise UserError(f"--out {typed(out)}: not empty; choose another{more}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path = path if out is not None else _made(path)
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {typed(path)}: can't be made ({error.strerror})") from error
    if fill is not None:
        try:
            fill(path)
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
    os.environ["SELFTAUGHT_RUN_FOLDER"] = str(path)
    if meeting is not None:
        write_text(_note(), str(path))
    return path


def forget_folder() -> None:
    """Take away the note by which the other processes found the folder, so that the next run of one launch has its own
    (``srun bash -c "selftaught train a; selftaught train b"``).
    """
    if is_first() and launch_id() is not None:
        _note().unlink(missing_ok=True)


def _note() -> Path:
    """Where the first process of a launch writes which folder it took."""
    return Path("runs") / f".{launch_id()}"


def is_free(folder: Path) -> bool:
    """Whether a run may begin in a folder: nothing is there but what a killed process left."""
    if not folder.is_dir():
        return not folder.exists()
    return all(path.suffix == ".part" or path.name == locks.LOCK for path in folder.iterdir())


def _made(path: Path) -> Path:
    """A new folder of that name, numbered where there is one already, also one that appears just now."""
    number, folder = 2, path
    while True:
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            folder, number = path.with_name(f"{path.name}-{number}"), number + 1


def beside(run: Path, tag: str) -> Path:
    """A free name beside a run: its own with a tag, numbered where there is one already."""
    stem = run.with_name(f"{run.name}-{tag}")
    number, path = 2, stem
    while path.exists():
        path, number = stem.with_name(f"{stem.name}-{number}"), number + 1
    return path


def _awaited(note: Path, seconds: float = 120) -> str:
    """What the first process wrote into a note, as soon as it is there."""
    end = time.monotonic() + seconds
    while not note.exists():
        if time.monotonic() > end:
            raise UserError(f"{note}: the first process made no run folder within {seconds:.0f} s; see its message")
        time.sleep(0.1)
    return note.read_text().strip()


def environment() -> dict[str, Any]:
    """The versions and the machine that a run was made with."""
    from importlib.metadata import PackageNotFoundError, version

    import torch

    from selftaught.engine.precision import cores

    found: dict[str, Any] = {"python": platform.python_version(), "machine": platform.machine(), "cores": cores()}
    for name in ("selftaught", "torch", "lightning", "timm", "opencv-python-headless", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found
