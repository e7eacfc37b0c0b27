"""Compiled networks, where the machine can compile; else training goes on as it is and says so."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def missing_compiler(device: str) -> str | None:
    """What keeps ``torch.compile`` from working for a torch device type ("cpu", "cuda", "mps"); None where it works."""
    if device == "cuda":
        from torch.utils._triton import has_triton

        return None if has_triton() else "Triton is not installed"
    if device == "mps":
        return "it is not dependable on this device yet"
    named = os.environ.get("CXX")
    if any(shutil.which(name) for name in ([named] if named else ["g++", "clang++"])):
        return None
    return f"no C++ compiler is installed ({named or 'g++ or clang++'})"


def compile_networks(method: nn.Module, device: str, say: Callable[[str], None]) -> list[nn.Module]:
    """Compile every network of a method in place: its weights, their names and its checkpoints stay what they are.

    What can't be compiled at the first batch runs as it is, with torch's own warning.

    Args:
        method: its children with parameters are compiled, one by one.
        device: torch device type that it will train on.
        say: called with one line when nothing can be compiled here.

    Returns:
        The networks that will be compiled at their first batch.
    """
    if problem := missing_compiler(device):
        say(f"--compile: {problem}; training without it")
        return []
    from torch import _dynamo

    _dynamo.config.suppress_errors = True
    _dynamo.reset()  # networks of earlier runs would count towards the limit of compilations
    networks = [network for network in method.children() if any(True for _ in network.parameters())]
    for network in networks:
        network.compile()
    return networks


def release_networks(networks: list[nn.Module]) -> None:
    """Let networks run as they are again: what follows training has batches of other sizes."""
    for network in networks:
        network._compiled_call_impl = None


def eagerly(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function of one argument that calls compiled networks as they are: for passes not worth compiling."""

    def call(argument: Any) -> Any:
        with torch.compiler.set_stance("force_eager"):
            return function(argument)

    return call
