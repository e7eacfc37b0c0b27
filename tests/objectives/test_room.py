"""The room finds its files; nothing that is exported is hidden by the module of the same name."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from selftaught import objectives


def test_every_name_is_an_objective_and_no_module() -> None:
    assert dir(objectives) == sorted(objectives.__all__)
    for name in objectives.__all__:
        assert not isinstance(getattr(objectives, name), ModuleType), name
    for slug in ("simclr", "dcl", "clip", "barlow_twins", "sla", "core_tuning", "isogclr", "c_bsn"):
        module = import_module(f"selftaught.objectives.{slug}")
        assert getattr(objectives, slug) is getattr(module, slug)


def test_operators_and_baselines_are_found_beside_their_paper() -> None:
    assert objectives.infonce.__module__ == "selftaught.objectives.dcl"
    assert {"sorting_network", "PairState", "grid_centres", "amcl_omega", "UNLABELLED"} <= set(objectives.__all__)
