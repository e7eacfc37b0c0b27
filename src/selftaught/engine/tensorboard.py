"""TensorBoard's log, which a full disk ends in a line; the training goes on."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger

__all__ = ["SparedTensorBoard", "writers_told"]


class SparedTensorBoard(TensorBoardLogger):
    """Lightning's logger; what goes wrong with the disk ends the log, not the training.

    Args:
        say: called with one line when the log ends.
        **options: of Lightning's logger.
    """

    def __init__(self, say: Callable[[str], Any] = print, **options: Any) -> None:
        super().__init__(**options)
        self._say, self.ended = say, False

    @contextlib.contextmanager
    def spared(self) -> Iterator[None]:
        """What is logged within ends the log where it can't be written."""
        try:
            yield
        except OSError as error:
            if not self.ended:
                self._say(f"{self.log_dir}: can't be written ({error.strerror}); training goes on without TensorBoard")
            self.ended = True

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Values of a step."""
        with self.spared():
            super().log_metrics(metrics, step)

    def log_hyperparams(self, params: Any, *more: Any, **named: Any) -> None:
        """Options of the run."""
        with self.spared():
            super().log_hyperparams(params, *more, **named)

    def add_image(self, name: str, image: Any, step: int) -> None:
        """A picture (C, H, W) in [0, 1]."""
        with self.spared():
            self.experiment.add_image(name, image, step)

    def save(self) -> None:
        """The options, beside the log."""
        with self.spared():
            super().save()

    def finalize(self, status: str) -> None:
        """Close the log."""
        with self.spared():
            super().finalize(status)


@contextlib.contextmanager
def writers_told() -> Iterator[None]:
    """No traceback of a thread that writes a log onto a full disk: whoever asks it next is told."""
    before = threading.excepthook

    def quiet(told: threading.ExceptHookArgs) -> None:
        if not (isinstance(told.exc_value, OSError) and told.exc_value.errno is not None):
            before(told)

    threading.excepthook = quiet
    try:
        yield
    finally:
        threading.excepthook = before
