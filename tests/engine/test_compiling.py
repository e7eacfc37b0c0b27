"""Compiled training is the same training; without a compiler it goes on and says why."""

import csv
import shutil

import pytest
import torch
from torch import nn

import selftaught
from selftaught.engine.compiling import compile_networks, eagerly, missing_compiler
from tests.conftest import TINY


class Method(nn.Module):
    """Two networks and something without weights."""

    def __init__(self):
        super().__init__()
        self.encoder, self.head, self.act = nn.Linear(4, 3), nn.Linear(3, 2), nn.ReLU()


def test_networks_are_compiled_in_place_and_keep_the_names_of_their_weights(monkeypatch):
    monkeypatch.setenv("CXX", "python3")  # anything that is installed
    method = Method()
    names = list(method.state_dict())
    assert compile_networks(method, "cpu", print) == [method.encoder, method.head]
    assert list(method.state_dict()) == names
    assert method.act._compiled_call_impl is None


def test_without_a_compiler_it_says_so_and_leaves_the_networks_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", str(tmp_path / "no-such-compiler"))
    said = []
    method = Method()
    assert compile_networks(method, "cpu", said.append) == []
    assert method.encoder._compiled_call_impl is None
    assert len(said) == 1
    assert "no-such-compiler" in said[0]
    assert "training without it" in said[0]
    assert missing_compiler("mps") is not None


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler here")
def test_compiled_training_learns_the_same(tmp_path):
    options = TINY | {"precision": "32", "steps": 4, "log_every": 1, "knn_every": 0.5, "loggers": ["none"]}
    losses, states = [], []
    for compiled in (False, True):
        run = selftaught.train("simclr", "digits", out=str(tmp_path / str(compiled)), compile=compiled, **options)
        with run.layout.metrics.open(newline="") as file:
            losses.append([float(row["loss"]) for row in csv.DictReader(file)])
        states.append(run.encoder.state_dict())
        assert all(module._compiled_call_impl is None for module in run.encoder.modules())
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-2, atol=1e-3)


def test_a_pass_can_leave_compiled_networks_as_they_are():
    calls = []

    def backend(graph, inputs):
        calls.append(graph)
        return graph

    torch._dynamo.reset()
    layer = nn.Linear(4, 3)
    layer.compile(backend=backend)
    x = torch.randn(2, 4)
    expected = torch.nn.functional.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(eagerly(layer)(x), expected)
    assert not calls
    torch.testing.assert_close(layer(x), expected)
    assert len(calls) == 1
