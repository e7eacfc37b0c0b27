"""The doctor measures and says what limits."""

from __future__ import annotations

import pytest

from selftaught import doctor


@pytest.mark.slow
def test_it_measures_both_sides_and_names_the_limit() -> None:
    text = doctor.examine("digits", batch_size=16, seconds=0.2)
    lines = text.splitlines()
    assert lines[0].startswith("cores ")
    assert any("views of digits" in line and "images/s" in line for line in lines)
    assert sum(line.startswith("training step, ") for line in lines) == 2
    assert lines[-1].startswith("limit: ")


def test_the_limit_is_the_slower_side() -> None:
    assert "making views" in doctor._limit(views=10.0, steps=1000.0, device="cpu")
    assert "the training step" in doctor._limit(views=1e6, steps=1000.0, device="cpu")
