"""Checkpoints that a run can be killed between: written atomically, with every generator's state, on signals too."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback

from selftaught.engine.distributed import is_distributed
from selftaught.errors import UserError, first_line

_TOGETHER = 8  # steps between the questions that processes ask one another


class Interrupted(Exception):
    """A signal asked the run to stop; its state is saved. ``signum`` says which."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


def random_state() -> dict[str, Any]:
    """The state of Python's, NumPy's and torch's generators, in types that ``weights_only`` loading admits."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002 - the legacy one is what others use
    state: dict[str, Any] = {
        "python": repr(random.getstate()),
        "numpy": [str(kind), [int(k) for k in keys], int(position), int(has_gauss), float(gauss)],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Put back what :func:`random_state` returned."""
    import ast

    random.setstate(ast.literal_eval(state["python"]))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])


def read_checkpoint(path: Path, mend: str = "take it from a copy of the run, or train again") -> dict[str, Any]:
    """The content of a checkpoint, on the CPU, its bytes compared with their checksums first.

    Tensors stay on disk until they are looked at. Nothing is unpickled but tensors and plain values.

    Args:
        path: the file.
        mend: what to do where it is damaged.

    Raises:
        UserError: it can't be read, or isn't what was written.
    """
    try:
        with zipfile.ZipFile(path) as file:
            broken = file.testzip()
        if broken is not None:
            raise UserError(f"{path}: damaged ({broken} is not what was written); {mend}")
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror or error}); {mend}") from error
    except (zipfile.BadZipFile, RuntimeError, ValueError, EOFError, KeyError, UnpicklingError, zlib.error) as error:
        raise UserError(f"{path}: damaged ({first_line(error, 60)}); {mend}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a checkpoint; {mend}")
    return content


def epoch_batches(content: dict[str, Any], path: Path) -> int:
    """Batches that an epoch had in the run of a checkpoint.

    Raises:
        UserError: it is of an older version, which did not write that down.
    """
    found = content["selftaught"].get("epoch_batches")
    if found is None:
        raise UserError(f"{path}: of an older version, which tells no epoch's length; give --steps, or train anew")
    return int(found)


def save_atomically(trainer: L.Trainer, path: Path) -> str | None:
    """Write a checkpoint beside its place, flush it, then move it there.

    Returns:
        None, or in one line why it could not be written (a full disk); the last good one then stays.
    """
    part = path.with_suffix(".part")
    try:
        trainer.save_checkpoint(part, weights_only=False)
        if trainer.is_global_zero:
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        stays = "; the last good one stays" if path.exists() else ""
        return f"checkpoint not written ({error.strerror or error}){stays}"
    return None


@contextlib.contextmanager
def signals_given_back() -> Iterator[None]:
    """Whatever happens within, Ctrl-C and SIGTERM do afterwards what they did before.

    Lightning puts back what it found when it took them, which is our handler; and after an error nobody puts anything
    back. Ctrl-C would then do nothing for the rest of a session.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None and threading.current_thread() is threading.main_thread():
                signal.signal(number, handler)


def diverged(what: str, step: int, checkpoint: Path) -> UserError:
    """The error that a run ends with where what it computes is no number any more.

    Args:
        what: the loss term or weight.
        step: at which it was seen.
        checkpoint: file of the last good one, if there is any.
    """
    kept = f"the last good checkpoint is {checkpoint}" if checkpoint.exists() else "none saved yet"
    return UserError(
        f"{what} became NaN or infinite at step {step}; {kept}; try a smaller --lr, --clip 1 or --precision 32"
    )


class Checkpoints(Callback):
    """Save now and then, at the end and on SIGTERM or Ctrl-C; restore the generators exactly.

    Args:
        path: file of the last checkpoint.
        every_minutes: minutes between saves.
        every_steps: optimiser steps between saves; 0 for by time alone.
        warn: called with one line when a save fails.
    """

    def __init__(self, path: Path, every_minutes: float, every_steps: int, warn: Any = print) -> None:
        self.path, self.every_minutes, self.every_steps, self.warn = path, every_minutes, every_steps, warn
        self.saved_step = self._step = -1
        self.asked: int | None = None
        self._interrupts = 0
        self._last = time.monotonic()
        self._state: dict[str, Any] | None = None
        self._handlers: dict[int, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """The generators' state at the moment of saving."""
        return {"random": random_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep the generators' state until training starts, when set-up can no longer draw from them."""
        self._state = state["random"]

    def setup(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        """Catch the signals: a flag, acted on after the step."""
        try:
            self._handlers = {s: signal.signal(s, self._ask) for s in (signal.SIGTERM, signal.SIGINT)}
        except ValueError:  # not the main thread: whoever owns it owns the signals
            self._handlers = {}

    def _ask(self, signum: int, frame: Any) -> None:
        """Stop after the step. A second Ctrl-C changes nothing (Lightning would end the process without a word)."""
        self._interrupts += signum == signal.SIGINT
        if self._interrupts > 2:
            os._exit(128 + signum)
        self.asked = signum

    def teardown(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        """Give the signals back."""
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)
        self._handlers = {}

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        """Put the generators where the saved run left them.

        The signals are taken once more: since ``setup`` Lightning has put its own handler in front, which stops between
        the batches of one step.
        """
        for signum in self._handlers:
            signal.signal(signum, self._ask)
        self._last, self._step = time.monotonic(), module.steps
        if self._state is not None:
            set_random_state(self._state)
            self._state = None

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Save where it is due; stop where a signal asked for it; never between the batches of one step."""
        step = module.steps
        if step == self._step:
            return
        self._step = step
        asked, overdue = self._agreed(step, module.device)
        if asked:
            self.asked = asked
            self.save(trainer)
            raise Interrupted(asked)
        if step == self.saved_step:
            return
        by_step = self.every_steps and step % self.every_steps == 0
        if by_step or overdue:
            self.save(trainer)

    def _agreed(self, step: int, device: torch.device) -> tuple[int, bool]:
        """The signal that came (0: none) and whether a save is overdue, the same on every process.

        Saving is a matter of all processes: several of them ask one another every few steps, since their clocks differ
        and a signal may reach only one.
        """
        asked, overdue = self.asked or 0, time.monotonic() - self._last > 60 * self.every_minutes
        if not is_distributed():
            return asked, overdue
        if step % _TOGETHER:
            return 0, False
        flags = torch.tensor([asked, int(overdue)], device=device)
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return int(flags[0]), bool(flags[1])

    def save(self, trainer: L.Trainer) -> str | None:
        """Write the checkpoint now. A weight whose square is not finite stops the run instead, so that the last one is
        good: nothing that is computed with such a weight is finite.

        Returns:
            None, or in one line why it could not be written.

        Raises:
            UserError: such a weight.
        """
        method: Any = trainer.lightning_module
        for name, weight in method.named_parameters():
            if not bool(torch.isfinite(weight.detach().float().square()).all()):
                raise diverged(f"weight {name}, or its square,", method.steps, self.path)
        problem = save_atomically(trainer, self.path)
        self._last = time.monotonic()
        if problem:
            self.warn(problem)
        else:
            self.saved_step = method.steps
        return problem
