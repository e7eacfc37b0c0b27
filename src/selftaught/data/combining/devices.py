"""Devices worn together: one sample is the same stretch of time of all of them, one above the other in its channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from selftaught._words import plural
from selftaught.data.pixels import finite
from selftaught.data.series import window_places
from selftaught.data.source import Source, digest
from selftaught.errors import UserError

__all__ = ["Devices", "align"]


class Devices(Source):
    """Windows of recordings of several devices at once, (D C, T): the channels of the first device, then the second's.

    Attributes:
        devices: names of the D devices.
    """

    modality = "series"

    def __init__(
        self,
        recordings: Sequence[Mapping[str, np.ndarray]],
        stems: Sequence[str],
        name: str,
        *,
        window: int,
        step: int | None = None,
        devices: Sequence[str] | None = None,
        rate: float | None = None,
    ) -> None:
        """Cut windows; those in which a device has no values are left out of all of them.

        Args:
            recordings: device -> (C, T) float of one recording; all devices of it equally long, NaN where a device has
                no value, all of as many channels.
            stems: a name for each recording.
            name: what to call the source.
            window: instants in a sample.
            step: instants between the starts of two windows; None: ``window``.
            devices: the devices to take, in this order; None: those of the first recording.
            rate: in Hz.

        Raises:
            UserError: fewer than two devices, one that a recording lacks, lengths or channels that differ, no window.
        """
        chosen = list(devices if devices is not None else (recordings[0] if recordings else ()))
        self.devices = chosen
        if len(chosen) < 2:
            raise UserError(f"{name}: devices are learnt from beside each other: give two or more, not {chosen}")
        joined = [
            _joined(recording, chosen, f"{name}: {stem}") for recording, stem in zip(recordings, stems, strict=True)
        ]
        sizes = {len(rows) for rows in joined}
        if len(sizes) > 1:
            raise UserError(f"{name}: recordings of {min(sizes)} to {max(sizes)} channels; all must have as many")
        places = window_places([rows.shape[1] for rows in joined], window, window if step is None else step)
        holes = [np.concatenate([[0], np.cumsum(~np.isfinite(rows).all(0))]) for rows in joined]
        whole = np.array([holes[r][start + window] == holes[r][start] for r, start in places.tolist()], dtype=bool)
        if not whole.any():
            longest = max((rows.shape[1] for rows in joined), default=0)
            raise UserError(
                f"{name}: no window of {window} instants in which all of {', '.join(chosen)} have values (the "
                f"longest recording has {longest}); take smaller windows or fewer devices"
            )
        self.name, self.window, self.rate, self.channels = name, window, rate, len(joined[0])
        self._recordings = [np.ascontiguousarray(rows, dtype=np.float32) for rows in joined]
        self.places, lost = places[whole], int((~whole).sum())
        self.names = [f"{stems[r]}@{start}" for r, start in self.places.tolist()]
        self.notes = [f"{plural(lost, 'window')} left out in which a device has a gap"] if lost else []

    @property
    def recording(self) -> np.ndarray:
        """(n,) which recording each window is from."""
        return self.places[:, 0]

    def read(self, i: int, min_side: int | None = None) -> np.ndarray:
        """One window (D C, T) float32; see `Source.read`."""
        recording, start = self.places[i].tolist()
        return finite(self._recordings[recording][:, start : start + self.window].copy(), self.names[i])

    def describe(self) -> str:
        """One line, with the devices."""
        return f"{super().describe()}, devices {' '.join(self.devices or [])}"

    def fingerprint(self) -> str:
        """Of the recordings, the windows and the devices."""
        rows = [digest(r) for r in self._recordings]
        return digest("devices", *rows, self.places, self.window, self.devices or [], self.labels, self.classes or [])


def _joined(recording: Mapping[str, np.ndarray], devices: Sequence[str], where: str) -> np.ndarray:
    missing = [device for device in devices if device not in recording]
    if missing:
        raise UserError(f"{where} has no device {missing[0]}; it has {', '.join(recording)}")
    shapes = {np.shape(recording[device]) for device in devices}
    if len(shapes) > 1:
        some = ", ".join(f"{d} {'x'.join(map(str, np.shape(recording[d])))}" for d in devices)
        raise UserError(f"{where}: devices of one recording must have as many channels and instants: {some}")
    return np.concatenate([np.asarray(recording[device]) for device in devices])


def align(
    parts: Mapping[str, tuple[np.ndarray, np.ndarray]], rate: float, gap: float = 0.1
) -> tuple[dict[str, np.ndarray], float]:
    """Recordings of several devices brought to one clock, by their time stamps.

    The common time runs from the last beginning to the first end, in even steps. In between stamps values are linear;
    a device that runs faster is averaged first (see `clocks.resample`), so that what is faster than half the new rate
    does not come back as something slow. Where its stamps lie further apart than ``gap`` (or than 1.5 of its steps)
    a device has NaN.

    Args:
        parts: device -> (times in seconds (T,), rising; values (T, C), finite).
        rate: common rate in Hz.
        gap: longest time between two stamps that is bridged, in seconds.

    Returns:
        device -> (C, T) float32, and the time of the first instant.

    Raises:
        UserError: times that do not rise; no time that all devices share.
    """
    for device, (at, values) in parts.items():
        if len(at) != len(values) or len(at) < 2 or not (np.diff(at) > 0).all():
            raise UserError(f"{device}: its times must rise, one for each row")
    start, stop = max(at[0] for at, _ in parts.values()), min(at[-1] for at, _ in parts.values())
    if stop <= start:
        spans = ", ".join(f"{device} {at[0]:.1f} to {at[-1]:.1f} s" for device, (at, _) in parts.items())
        raise UserError(f"the devices share no time: {spans}; are their clocks set alike?")
    grid = start + np.arange(int((stop - start) * rate + 1e-6) + 1) / rate
    return {device: _on_grid(at, values, grid, rate, gap) for device, (at, values) in parts.items()}, float(start)


def _on_grid(at: np.ndarray, values: np.ndarray, grid: np.ndarray, rate: float, gap: float) -> np.ndarray:
    from selftaught.data.clocks import resample

    step = float(np.median(np.diff(at)))
    after = np.searchsorted(at, grid, side="left").clip(1, len(at) - 1)
    hole = (at[after] - at[after - 1] > max(gap, 1.5 * step)) & (at[after] != grid) & (at[after - 1] != grid)
    if 1 / rate > 1.02 * step:
        values = resample(values, at, step, step / max(1, round(step * rate)) if step * rate > 1 else 1 / rate)
        at = at[0] + np.arange(len(values)) / rate
    found: np.ndarray = np.stack([np.interp(grid, at, column) for column in values.T]).astype(np.float32)
    found[:, hole] = np.nan
    return found


def windows_of_arrays(x: Any, devices: Sequence[str] | None, name: str) -> tuple[np.ndarray, list[str]]:
    """Windows (N, D, C, T) or (N, D, T, C) of an array as (N, D C, T), and the devices' names.

    Time is the longer of the last two axes.

    Raises:
        UserError: an array of another shape; names for another number of devices.
    """
    array = np.asarray(x, dtype=np.float32)
    if array.ndim != 4 or array.shape[1] < 2:
        raise UserError(f"{name}: windows of several devices are (N, D, C, T) or (N, D, T, C), got {array.shape}")
    if array.shape[2] > array.shape[3]:
        array = array.swapaxes(2, 3)
    called = [str(d) for d in devices] if devices is not None else [f"device{k}" for k in range(array.shape[1])]
    if len(called) != array.shape[1]:
        raise UserError(f"{name}: {len(called)} names for {array.shape[1]} devices")
    return array.reshape(len(array), -1, array.shape[3]), called
