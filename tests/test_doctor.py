"""The doctor measures and says what limits."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from selftaught import doctor
from selftaught.engine.precision import accelerator, cores


@pytest.mark.slow
def test_it_measures_both_sides_and_names_the_limit() -> None:
    text = doctor.examine("digits", batch_size=16, seconds=0.2)
    lines = text.splitlines()
    assert lines[0].startswith(f"cores {cores()}, memory ")
    assert lines[1].startswith(f"device {accelerator()}")
    views = _number(r"^views of digits at 64 pixels: (\d+) images/s on one core$", text)
    steps = [_number(rf"^training step, {precision}: (\d+) images/s$", text) for precision in ("32", "bf16")]
    assert views > 0
    assert min(steps) > 0
    share = cores() if accelerator() != "cpu" else max(1, cores() // 2)
    limit = "making views" if views * share < max(steps) else "the training step"
    assert lines[-1].startswith(f"limit: {limit} (")
    named = _number(r"^limit: .*?\((\d+) images/s", text)
    assert named == pytest.approx(min(views * share, max(steps)), abs=share)


def test_reading_is_measured_for_any_kind_of_samples() -> None:
    text = doctor.examine("ultrasound", seconds=0.2)
    assert _number(r"^reading ultrasound: (\d+) clips/s on one core$", text) > 0
    assert "selftaught data check ultrasound" in text
    assert "training step" not in text


def test_slow_files_are_told_to_be_packed(tmp_path: Path) -> None:
    """Large photographs: decoding them takes most of the time of two small views."""
    pixels = np.random.default_rng(0).integers(0, 255, (1500, 2000, 3), dtype=np.uint8)
    for k in range(3):
        Image.fromarray(pixels).save(tmp_path / f"{k}.png")
    assert re.search(
        r"set --cache: \d+% of the time for views", doctor.examine(str(tmp_path), batch_size=2, seconds=0.2)
    )


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text, re.MULTILINE)
    assert found is not None, text
    return int(found[1])


def test_a_rate_is_samples_by_the_time_that_the_calls_took(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that moves by a quarter of a second in every call; the first call warms up and is not counted."""
    clock, calls = [0.0], []

    def call(k: int) -> None:
        calls.append(k)
        clock[0] += 100.0 if k == 0 else 0.25

    monkeypatch.setattr(doctor, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    assert doctor._rate(call, 8, seconds=4.0) == 32.0
    assert calls == list(range(9))
    assert doctor._rate(call, 8, seconds=0.0) == 32.0


def test_the_limit_is_the_slower_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "cores", lambda: 4)
    said = doctor._limit(views=10.0, steps=25.0, device="cpu")
    assert said.startswith("limit: making views (20 images/s on 2 cores)")
    assert "--view-device model" in said
    assert doctor._limit(views=10.0, steps=25.0, device="cuda").startswith("limit: the training step (25 images/s)")
    assert "views could feed 20 images/s" in doctor._limit(views=10.0, steps=19.0, device="cpu")
