"""From a small YAML to the cells of a grid: every name checked before anything is trained."""

from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from selftaught import catalog
from selftaught.benchmark._cell import HOST, UNTRAINED, Cell
from selftaught.benchmark.cells import key_of
from selftaught.benchmark.judging import PROBES
from selftaught.data.spec import near
from selftaught.errors import UserError
from selftaught.evaluation.ood import NEIGHBOURS, SCORERS
from selftaught.evaluation.tuning import RECIPES
from selftaught.run.layout import read_yaml

DEFAULTS: dict[str, Any] = {
    "sources": {},
    "methods": None,
    "data": None,
    "encoders": [None],
    "initialisations": ["random"],
    "fractions": [1.0],
    "seeds": 3,
    "options": {},
    "overrides": [],
    "probe": "linear",
    "recipe": "adamw",
    "judge_on": None,
    "cross": False,
    "ood": [],
    "neighbours": NEIGHBOURS,
    "limits": [20000, 10000],
    "features": False,
}
"""What a grid, or a block of it, may set."""
_MOST_SEEDS = 10_000
_OF_THE_GRID = ("name", "blocks", "cluster", "title")


@dataclass
class Grid:
    """A grid, ready to be run.

    Args:
        name: of the grid.
        cells: what to train and judge, in the order of the tables; those marked ``first`` must be done before the rest.
        cluster: settings of the cluster, see ``executors.Cluster``.
        config: the YAML's content.
    """

    name: str
    cells: list[Cell]
    cluster: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)


def read(config: str | Path | Mapping[str, Any]) -> Grid:
    """Read a grid from a YAML file or a dict.

    Raises:
        UserError: no such file, an unknown key, method, option, probe or scorer; nothing to do.
    """
    content = dict(config) if isinstance(config, Mapping) else read_yaml(Path(config))
    name = str(content.get("name") or ("grid" if isinstance(config, Mapping) else Path(config).stem))
    blocks = content.get("blocks", [{}])
    if not isinstance(blocks, list) or not all(isinstance(block, Mapping) for block in blocks):
        raise UserError(f"{name}: blocks must be a list of mappings, each with the keys that it changes")
    for part, extra in ((content, _OF_THE_GRID), *((block, ()) for block in blocks)):
        for key in part:
            if key not in DEFAULTS and key not in extra:
                known = [*DEFAULTS, *extra]
                raise UserError(f"{name}: no key {key!r}{near(str(key), known)}; a grid has {', '.join(known)}")
    shared = {key: value for key, value in content.items() if key in DEFAULTS}
    found: dict[str, Cell] = {}
    for block in blocks:
        merged = DEFAULTS | shared | dict(block)
        merged["options"] = dict(shared.get("options") or {}) | dict(block.get("options") or {})
        merged["sources"] = dict(shared.get("sources") or {}) | dict(block.get("sources") or {})
        for cell in _Block(name, merged).cells():
            _add(found, cell)
    return Grid(name, list(found.values()), dict(content.get("cluster") or {}), content)


def _add(found: dict[str, Cell], cell: Cell) -> None:
    """Take in a cell; of two with one key the one that is shown stays, and does what either is for."""
    there = found.get(cell["key"])
    if there is None:
        found[cell["key"]] = cell
        return
    shown = cell if there["hidden"] else there
    first = there["first"] or cell["first"]
    found[cell["key"]] = shown | {"first": first, "hidden": there["hidden"] and cell["hidden"]}


class _Block:
    """One block: the product of its axes."""

    def __init__(self, grid: str, settings: dict[str, Any]) -> None:
        self.grid, self.s = grid, settings
        for key in ("methods", "data"):
            if not settings[key]:
                raise UserError(f"{grid}: names no {key}; write {key}: [{'simclr' if key == 'methods' else 'digits'}]")
        self.fractions = [self._fraction(value) for value in _list(settings["fractions"])]
        self.sources: dict[str, Any] = dict(settings["sources"])
        self._check_judgement()

    def cells(self) -> list[Cell]:
        """The cells of the block, and those that they start from."""
        s = self.s
        starts = [_start(self.grid, given) for given in _list(s["initialisations"])]
        methods = [_method(self.grid, given) for given in _list(s["methods"])]
        made: dict[str, Cell] = {}
        axes = (methods, _list(s["data"]), _list(s["encoders"]), starts, _seeds(self.grid, s["seeds"]))
        for (slug, name, own), data, encoder, start, seed in itertools.product(*axes):
            labelled = slug != UNTRAINED and _needs_labels(slug)
            for fraction in self.fractions if labelled else [1.0]:
                cell = self._cell(slug, name, own, str(data), encoder, start, fraction, seed)
                if "cell" in cell["start"]:
                    _add(made, cell["start"].pop("cell"))
                _add(made, cell)
        return list(made.values())

    def _cell(
        self, slug: str, name: str, own: dict[str, Any], data: str, encoder: str | None, start: dict[str, Any],
        fraction: float, seed: int, first: bool = False,
    ) -> Cell:  # fmt: skip
        sources = self._sources(data)
        begin = {key: value for key, value in start.items() if key in ("name", "pretrained", "run")}
        if "method" in start:
            before = self._cell(
                start["method"], start["name"], start["options"], start["data"], encoder, {"name": "random"}, 1.0, seed,
                first=True,
            )  # fmt: skip
            begin |= {"key": before["key"], "cell": before}
        facts = {"method": slug, "name": name, "data": data, "encoder": encoder or "", "start": start["name"]}
        options = dict(self.s["options"])
        for rule in self.s["overrides"]:
            if _applies(self.grid, rule, facts):
                options |= dict(rule.get("options") or {})
        options |= own
        _check_options(self.grid, HOST if slug == UNTRAINED else slug, options)
        cell: Cell = facts | {
            "sources": sources, "encoder": encoder, "start": begin, "fraction": fraction, "seed": seed,
            "options": options, "judge": self._judgement(data, sources), "first": first,
            "hidden": first,
        }  # fmt: skip
        cell["key"] = key_of(cell)
        cell["label"] = _label(cell)
        return cell

    # ---- data ------------------------------------------------------------------------------------------------
    def _sources(self, data: str) -> dict[str, str]:
        """The source strings behind a name: one, or those of a union."""
        found = self.sources.get(data, data)
        if isinstance(found, list):
            if not found:
                raise UserError(f"{self.grid}: sources.{data} is an empty list; name the sources that it unites")
            return {str(part): self._plain(str(part)) for part in found}
        return {data: self._plain(data)}

    def _plain(self, data: str) -> str:
        found = self.sources.get(data, data)
        if not isinstance(found, str):
            raise UserError(f"{self.grid}: sources.{data} must be a source string or a list of names")
        return found

    def _judgement(self, data: str, sources: dict[str, str]) -> dict[str, Any]:
        s = self.s
        wanted = s["judge_on"] or [name for name in map(str, _list(s["data"])) if len(self._sources(name)) == 1]
        on = {str(name): self._plain(str(name)) for name in (wanted or sources)}
        united = len(sources) > 1
        if not united:
            on = {data: sources[data]} | on
        alone = not (united or s["cross"] or s["ood"])
        more = {} if s["recipe"] == DEFAULTS["recipe"] else {"recipe": s["recipe"]}
        return more | {
            "on": {data: sources[data]} if alone else on, "own": "" if united else data, "probe": s["probe"],
            "fractions": self.fractions, "cross": bool(s["cross"]), "ood": list(s["ood"]),
            "neighbours": int(s["neighbours"]), "limits": list(s["limits"]), "features": bool(s["features"]),
        }  # fmt: skip

    def _check_judgement(self) -> None:
        s = self.s
        for probe in _list(s["probe"]) or [""]:
            if probe not in PROBES:
                raise UserError(f"{self.grid}: probe {probe!r}; it may be {', '.join(PROBES)}, or several of them")
        if s["recipe"] not in RECIPES:
            raise UserError(f"{self.grid}: recipe {s['recipe']!r}; fine-tuning has {', '.join(RECIPES)}")
        for scorer in _list(s["ood"]):
            if scorer not in SCORERS:
                raise UserError(f"{self.grid}: ood {scorer!r}; it may be {', '.join(SCORERS)}")
        s["ood"] = _list(s["ood"])
        limits = s["limits"]
        if not isinstance(limits, list) or len(limits) != 2 or not all(isinstance(n, int) and n >= 0 for n in limits):
            raise UserError(f"{self.grid}: limits must be two numbers, training and test samples; 0 for all")
        if not isinstance(s["overrides"], list) or not all(isinstance(rule, Mapping) for rule in s["overrides"]):
            raise UserError(f"{self.grid}: overrides must be a list of mappings with where and options")

    def _fraction(self, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
            raise UserError(f"{self.grid}: fractions {value!r}; a share of the labels lies in (0, 1], such as 0.1")
        return float(value)


def _label(cell: Cell) -> str:
    """One line for progress and errors."""
    parts = [f"{cell['name']} on {cell['data']}"]
    parts += [str(cell["encoder"])] if cell["encoder"] else []
    parts += [f"from {cell['start']['name']}"] if cell["start"]["name"] != "random" else []
    parts += [f"{100 * cell['fraction']:g}% labels"] if cell["fraction"] < 1 else []
    return ", ".join([*parts, f"seed {cell['seed']}"])


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _seeds(grid: str, value: Any) -> list[int]:
    if isinstance(value, int) and value > _MOST_SEEDS:
        raise UserError(f"{grid}: seeds {value}: more than {_MOST_SEEDS:,} seeds of every cell; give fewer")
    found = list(range(value)) if isinstance(value, int) else value
    if not isinstance(found, list) or not found or not all(isinstance(seed, int) for seed in found):
        raise UserError(f"{grid}: seeds {value!r}; give how many (3) or which ([0, 1, 2])")
    return found


def _method(grid: str, given: Any) -> tuple[str, str, dict[str, Any]]:
    """(slug, name in tables, options of its own)."""
    if isinstance(given, Mapping):
        options = {str(key): value for key, value in given.items() if key not in ("method", "name")}
        slug = str(given.get("method", ""))
        told = " ".join(f"{key}={value}" for key, value in options.items())
        name = str(given.get("name") or f"{slug} {told}".strip())
    else:
        slug, name, options = str(given), str(given), {}
    if slug != UNTRAINED:
        from selftaught import methods

        if slug not in methods.built():
            known = [*methods.built(), UNTRAINED]
            raise UserError(f"{grid}: no method {slug!r}{near(slug, known)}; there are {', '.join(known)}")
    return slug, name, options


@cache
def _needs_labels(slug: str) -> bool:
    from selftaught import methods

    return bool(methods.get(slug).needs_labels)


def _start(grid: str, given: Any) -> dict[str, Any]:
    """random; imagenet (timm's weights); a finished run; or a method that is trained on other data first."""
    if given == "random":
        return {"name": "random"}
    if given == "imagenet":
        return {"name": "imagenet", "pretrained": True}
    if not isinstance(given, Mapping) or "name" not in given:
        raise UserError(
            f"{grid}: initialisation {given!r}; it may be random, imagenet, or a mapping with name and either run "
            "(a folder), pretrained: true, or method and data"
        )
    name = str(given["name"])
    if given.get("pretrained"):
        return {"name": name, "pretrained": True}
    if "run" in given:
        return {"name": name, "run": str(given["run"])}
    if "method" not in given or "data" not in given:
        raise UserError(f"{grid}: initialisation {name}: give run (a folder), or method and data to train it with")
    slug, _, _ = _method(grid, str(given["method"]))
    options = {key: value for key, value in given.items() if key not in ("name", "method", "data")}
    return {"name": name, "method": slug, "data": str(given["data"]), "options": options}


def _applies(grid: str, rule: Mapping[str, Any], facts: Mapping[str, str]) -> bool:
    where = rule.get("where") or {}
    for key in (*rule, *where):
        if key not in (*facts, "where", "options"):
            raise UserError(f"{grid}: overrides know where (of {', '.join(facts)}) and options, not {key!r}")
    return all(any(fnmatch.fnmatchcase(facts[k], str(p)) for p in _list(pattern)) for k, pattern in where.items())


_ELSEWHERE = {
    "seed": "give seeds",
    "out": "give --out to the command",
    "data": "give data",
    "init": "give initialisations",
    "workers": "the machine's cores are divided among the cells; give --workers to the command",
}
"""What a grid sets for its runs by another key."""


@cache
def _option_names(slug: str) -> frozenset[str]:
    return frozenset(option.name for option in (*catalog.options(slug), *catalog.settings()))


def _check_options(grid: str, slug: str, options: Mapping[str, Any]) -> None:
    known = _option_names(slug)
    for name in options:
        if name in _ELSEWHERE:
            raise UserError(f"{grid}: {name!r} is no option of the runs of a grid: {_ELSEWHERE[name]}")
        if name not in known:
            raise UserError(f"{grid}: {slug} has no option {name!r} that a grid may set{near(str(name), known)}")
