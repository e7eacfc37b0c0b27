"""The catalogue: complete cards, search, and options read from syntax trees without running them."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from selftaught import catalog, methods
from selftaught.catalog import cards as cards_module
from selftaught.catalog.rules import rules_of
from selftaught.cli.benchmarks import BENCHMARKS
from selftaught.cli.commands import COMMANDS
from selftaught.cli.commands.benchmark import add_grid_options
from selftaught.cli.options import Parser
from selftaught.errors import UserError
from selftaught.run_settings import Settings

SYSTEMS = """
gopro clip-baselines c-bsn projection-head masked-scene-modeling scatsimclr selfdrsc rrformer prodepth
multi-output-deblur sla isogclr meta-loss-rescaling mochi collossl glare genview np-edit amcl global-local-seg
text-erasing mixed-barlow-twins perceptual-ssim core-tuning seer gaussian2scene barlow-twins cvrl lvm-med
infwide srgan sit dadeblur medmnist-benchmark retfiner cacr laf frame-projections uni4eye groco discovr dcl
video-ssl-benchmark infinite-lr ssl-vit-survey robust-depth dynamic-curation
""".split()  # noqa: SIM905
MODALITIES = {"any", "image", "image-text", "points", "series", "text", "video", "volume"}
JOBS = {"adapt", "benchmark", "classify", "curate", "depth", "edit", "forget", "represent", "restore", "segment"}
FAMILIES = {
    "benchmark", "clustering", "contrastive", "curation", "depth", "generation", "masked modelling", "pretext",
    "redundancy reduction", "restoration", "self-distillation", "supervision", "unlearning", "vision-language",
}  # fmt: skip
NOT_ON_ARXIV = {"perceptual-ssim", "vcop"}
BUILT = [card.slug for card in catalog.all_cards() if card.built and card.job != "benchmark"]
ROOT = Path(__file__).resolve().parents[1]
SHEETS = ROOT.parent / "shared" / "papers"


def test_all_systems_are_listed_in_their_order_before_the_baselines() -> None:
    listed = catalog.all_cards()
    assert len(SYSTEMS) == 47
    baselines = [c.slug for c in listed if c.baseline]
    assert baselines == sorted(baselines)
    assert {"bicubic", "byol", "dino", "mae", "simclr", "supervised", "swav", "vicreg"} <= set(baselines)
    assert [c.slug for c in listed] == SYSTEMS + baselines
    assert [c.number for c in listed] == [*range(1, 48), *[0] * len(baselines)]


@pytest.mark.parametrize("card", catalog.all_cards(), ids=lambda c: c.slug)
def test_every_card_is_complete(card: catalog.Card) -> None:
    assert all(getattr(card, name) for name in ("title", "paper", "venue", "needs"))
    if card.slug in ("bicubic", "vcop"):  # the papers that are not on arXiv
        assert (card.year, card.arxiv) in ((1981, ""), (2019, ""))
    else:
        assert re.fullmatch(r"\d{4}\.\d{5}", card.arxiv) or card.slug in NOT_ON_ARXIV
        assert 2015 <= card.year <= 2026
        assert not card.arxiv or int(card.arxiv[:2]) + 2000 <= card.year, "the venue can't be earlier than the preprint"
    assert set(card.modalities) <= MODALITIES
    assert card.job in JOBS
    assert card.family in FAMILIES
    assert 60 < len(card.summary) < 420
    assert 40 < len(card.avoid) < 260
    assert len(card.tags) >= 3
    assert len(set(card.tags)) == len(card.tags)
    for text in (card.summary, card.avoid, card.needs):
        assert text.endswith(".")
        assert "\n" not in text


@pytest.mark.skipif(not SHEETS.is_dir(), reason="the spec sheets are not beside this checkout")
@pytest.mark.parametrize("slug", SYSTEMS)
def test_paper_facts_equal_the_sheet(slug: str) -> None:
    sheet = (SHEETS / f"{slug}.md").read_text(encoding="utf-8")
    title, facts = sheet.splitlines()[0].removeprefix("# "), "\n".join(sheet.splitlines()[1:4])
    card = catalog.card(slug)
    assert card.arxiv in facts
    assert str(card.year) in facts
    assert card.venue.split()[0] in facts
    assert card.paper == title.replace("SSL with", "Self-supervised Learning with")


def test_built_is_derived_from_the_method_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards_module, "PACKAGE", tmp_path)
    (tmp_path / "methods").mkdir()
    card = catalog.card("barlow-twins")
    assert not card.built
    assert card.state == "not built yet"
    assert (catalog.options("barlow-twins"), catalog.presets("barlow-twins")) == ([], {})
    assert catalog.stages("barlow-twins") == ["train"]
    (tmp_path / "methods" / "barlow_twins.py").write_text("class Config:\n    lambda_: float = 0.005\n")
    assert card.built
    assert [o.name for o in catalog.options("barlow-twins")] == ["lambda_"]
    assert catalog.presets("barlow-twins") == {}


def test_a_card_is_found_by_any_spelling_and_an_unknown_one_names_its_neighbours() -> None:
    assert catalog.card("Barlow_Twins") is catalog.card("barlow-twins")
    with pytest.raises(UserError, match=r"no method 'barlow-twin'; nearest: barlow-twins") as error:
        catalog.card("barlow-twin")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="nearest: simclr"):
        catalog.card("sim-clr")
    with pytest.raises(UserError, match="'selftaught methods' lists them all"):
        catalog.card("zzzzzz")


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("dcl", "dcl"),
        ("barlow", "barlow-twins"),
        ("barlow twins", "barlow-twins"),
        ("cbsn", "c-bsn"),
        ("denoising", "c-bsn"),
        ("DENOISE", "c-bsn"),
        ("depth from weather", "robust-depth"),
        ("2103.03230", "barlow-twins"),
        ("super-resolution", "srgan"),
        ("small batches", "dcl"),
        ("noisy labels", "meta-loss-rescaling"),
        ("moco v3", "moco-v3"),
    ],
)
def test_search_puts_the_right_card_first(query: str, first: str) -> None:
    found = [c.slug for c in catalog.search(query)]
    assert found.index(first) < 3 if query in ("super-resolution", "small batches") else found[0] == first


def test_search_needs_every_word_and_filters_narrow_it() -> None:
    assert catalog.search() == catalog.all_cards()
    assert catalog.search("denoise satellite") == []
    assert {c.slug for c in catalog.search("sensors")} >= {"collossl", "frame-projections"}
    assert {c.slug for c in catalog.search(job="depth")} == {"monodepth2", "prodepth", "robust-depth"}
    assert {c.slug for c in catalog.search(modality="series")} == {
        "collossl", "frame-projections", "meta-loss-rescaling", "laf",
    }  # fmt: skip
    assert {c.slug for c in catalog.search("barlow", family="redundancy reduction")} == {
        "barlow-twins", "mixed-barlow-twins",
    }  # fmt: skip
    assert {"isogclr", "clip-baselines"} <= {c.slug for c in catalog.search(modality="image-text")}
    with pytest.raises(UserError, match='job="paint": no such job; there are: adapt, '):
        catalog.search(job="paint")


def _package(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


BASE = '''
import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal
Schedule = Literal["cosine", "step"]
TAU = 1 / 4
raise SystemExit("reading a file must not run it")

@dataclass
class Base:
    """Shared."""
    kind: ClassVar[str] = "x"
    lr: float = 1e-3
    """Learning
    rate."""
    schedule: Schedule = "cosine"
    "How it decays."
    tau: float = TAU
    _hidden: int = 3
'''
OTHER = "from ..base import Base\nclass Extra(Base):\n    tau: float = 9.0\n    extra: bool = True\n"
METHOD = '''
from dataclasses import dataclass, field
from typing import Literal, Optional
import toy.base as base
from toy import Shared as Common
from .other import Extra
from toy.lazy import Kind

@dataclass
class Config(Extra, Common):
    """The method's."""
    lr: float = -0.5
    mode: Literal["a", 2] | None = None
    """Which."""
    maybe: Optional[Literal["x", "y"]] = "x"
    kind: Kind = "p"
    widths: tuple[int, ...] = (512, 128)
    many: list[int] = field(default_factory=lambda: [1, 2])
    empty: dict[str, int] = field(default_factory=dict)
    given: int = field(default=2 * base.WIDTH)
    odd: float = max(1, 2)
    quoted: "Literal['u', 'v']" = "u"
    needed: int
    noted = 3

PRESETS = {"paper": {"epochs": 10 ** 2, **{"lr": base.TAU}}, "small": dict(widths=(8,), epochs=1)}

class Method:
    Config = Config
    stages = ("pretrain", "map")
'''


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return _package(
        tmp_path,
        {
            "toy/__init__.py": "from toy.base import Base as Shared\n",
            "toy/base.py": BASE + "\nWIDTH = 64\n",
            "toy/lazy.py": 'from typing import Literal\nKind = Literal["p", "q"]\n',
            "toy/methods/other.py": OTHER,
            "toy/methods/one.py": METHOD,
        },
    )


def test_options_follow_inheritance_literals_and_docstrings(toy: Path) -> None:
    found = catalog.read_options(toy / "toy/methods/one.py", "Config", toy)
    by_name = {o.name: o for o in found}
    own = ["mode", "maybe", "kind", "widths", "many", "empty", "given", "odd", "quoted", "needed"]
    assert list(by_name) == ["lr", "schedule", "tau", "extra", *own]
    assert (by_name["lr"].default, by_name["lr"].help, by_name["lr"].inherited) == (-0.5, "Learning rate.", True)
    assert (by_name["schedule"].choices, by_name["schedule"].help) == (("cosine", "step"), "How it decays.")
    assert (by_name["mode"].choices, by_name["mode"].default, by_name["mode"].inherited) == (("a", 2), None, False)
    assert by_name["mode"].kind == "a | 2"
    assert by_name["maybe"].choices == ("x", "y")
    assert by_name["kind"].choices == ("p", "q")
    assert by_name["quoted"].choices == ("u", "v")
    assert (by_name["widths"].default, by_name["widths"].type) == ((512, 128), "tuple[int, ...]")
    assert (by_name["many"].default, by_name["empty"].default, by_name["given"].default) == ([1, 2], {}, 128)
    assert (by_name["odd"].default, repr(by_name["odd"].default)) == ("max(1, 2)", "max(1, 2)")
    assert by_name["needed"].default is catalog.REQUIRED


def test_a_diamond_resolves_as_python_does(toy: Path) -> None:
    """Extra overrides a field of the common ancestor; a sibling that leaves that field alone must not bring it back."""
    head = "from toy.base import Base\nfrom toy.methods.other import Extra\nclass Other(Base):\n    lr: float = 2.0\n"
    (toy / "toy/diamond.py").write_text(head + "class Config(Other, Extra):\n    pass\n")
    found = {o.name: o.default for o in catalog.read_options(toy / "toy/diamond.py", "Config", toy)}
    assert found == {"lr": 2.0, "schedule": "cosine", "tau": 9.0, "extra": True}
    (toy / "toy/crossed.py").write_text(head + "class Config(Base, Extra):\n    pass\n")
    with pytest.raises(ValueError, match="the bases of Config contradict one another"):
        catalog.read_options(toy / "toy/crossed.py", "Config", toy)


def test_presets_and_stages_are_read_without_running(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards_module, "PACKAGE", toy / "toy")
    (toy / "toy/methods/dcl.py").write_text(METHOD)
    assert catalog.presets("dcl") == {"paper": {"epochs": 100, "lr": 0.25}, "small": {"widths": (8,), "epochs": 1}}
    assert catalog.stages("dcl") == ["pretrain", "map"]
    (toy / "toy/methods/dcl.py").write_text("PRESETS = make()\n")
    (toy / "toy/methods/groco.py").write_text("PRESETS = make()\n")
    with pytest.raises(ValueError, match=r"groco\.py: PRESETS must be a literal, and make\(\) is not"):
        catalog.presets("groco")
    with pytest.raises(ValueError, match=r"groco\.py has no class Config"):
        catalog.options("groco")


@pytest.mark.parametrize("slug", BUILT)
def test_what_the_tree_says_is_what_the_class_has(slug: str) -> None:
    """For every built method: names, order, defaults and presets equal those of the running class."""
    from importlib import import_module

    module = import_module(f"selftaught.methods.{slug.replace('-', '_')}")
    fields = dataclasses.fields(module.Config)
    read = catalog.options(slug)
    assert [o.name for o in read] == [f.name for f in fields]
    made = module.Config()
    assert {o.name: o.default for o in read} == {f.name: getattr(made, f.name) for f in fields}
    assert all(o.help for o in read), [o.name for o in read if not o.help]
    assert {o.name: o.rule for o in read} == rules_of(module.Config)
    kind = methods.get(slug)
    assert catalog.stages(slug) == list(kind.stages)
    assert catalog.roles(slug) == list(kind.roles)
    assert catalog.changes_a_run(slug) == kind.transforms
    assert catalog.default_data(slug) == kind.default_data
    assert catalog.presets(slug) == module.PRESETS
    rules = {o.name: o.rule for o in (*catalog.settings(), *read)}  # where both have one, the method's
    for name, recipe in catalog.presets(slug).items():
        for option, value in recipe.items():
            assert option in rules, f"preset {name} sets {option}, which nothing has"
            assert rules[option].check(value) == value, f"preset {name}"


def test_settings_of_a_run_are_listed_with_their_explanation() -> None:
    found = {o.name: o for o in catalog.settings()}
    assert {"data", "out", "epochs", "steps", "batch_size", "seed"} <= set(found)
    assert all(o.help for o in found.values())
    assert "bf16" in found["precision"].choices
    assert {name: o.rule for name, o in found.items()} == rules_of(Settings)


@pytest.mark.parametrize("slug", BUILT)
def test_every_number_of_a_method_has_its_limits(slug: str) -> None:
    """A number without a range takes any value without a word."""
    open_ended = [o.name for o in catalog.options(slug) if o.rule.type in ("int", "float") and o.rule.range is None]
    assert not open_ended


def test_card_text_says_everything_in_aligned_columns(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards_module, "PACKAGE", toy / "toy")
    (toy / "toy/methods/laf.py").write_text(METHOD)
    text = catalog.card_text("laf", width=80)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "LAF   (laf)"
    assert "ICLR 2024, arXiv 2404.00506" in text
    assert lines[-1] == "selftaught train laf --init RUN --forget class=NAME"
    start = lines.index("options of its own")
    assert lines[start + 1] == "  --mode    none        Which. [a | 2]"
    assert "  paper  epochs 100, lr 0.25" in lines
    assert any(re.search(r"^stages +pretrain, then map$", line) for line in lines)
    assert "options shared with other methods" in lines
    unbuilt = catalog.card_text("gopro")
    assert unbuilt.endswith("not built yet")
    assert "selftaught train" not in unbuilt


def test_tables_hold_every_card_once() -> None:
    listed = catalog.all_cards()
    rows = catalog.table_text(listed).splitlines()
    assert len(rows) == len(listed) + 1
    assert len({row.index(word) for row, word in zip(rows[:2], ("modality", "image-text"), strict=True)}) == 1
    lines = catalog.table_markdown(link="methods/{slug}.md").splitlines()
    assert len(lines) == len(listed) + 2
    assert {line.count("|") for line in lines} == {9}
    assert "| 42 | [dcl](methods/dcl.md) | DCL / DCLW | ECCV 2022 |" in lines[43]
    assert "`dcl`" in catalog.table_markdown([catalog.card("dcl")])


def test_the_catalogue_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom selftaught import catalog\n"
        "for c in catalog.all_cards():\n    catalog.card_text(c.slug)\n"
        "print(*sorted(m for m in sys.modules if '.' not in m))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "lightning", "timm", "yaml", "cv2", "rich"} & set(out)


# ---- pages made from the catalogue ----
@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "_generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_card_has_a_page_and_a_place_in_the_navigation(generate: ModuleType) -> None:
    pages = generate.pages()
    reference = {f"reference/{name}.md" for name in generate.REFERENCE}
    names = {card.slug for card in catalog.all_cards()} | {"index", "settings"}
    assert set(pages) == {f"methods/{name}.md" for name in names} | reference
    assert "::: selftaught.objectives.dcl\n" in pages["reference/objectives.md"]
    navigation = str(generate.navigation())
    for card in catalog.all_cards():
        page = pages[f"methods/{card.slug}.md"]
        assert card.summary in page
        assert card.avoid in page
        assert ("arxiv.org/abs/" in page) == bool(card.arxiv)
        assert f"{card.venue} {card.year}" in page
        assert ("Not built yet" in page) != card.built
        assert ("| option | default |" in page) == bool(catalog.options(card.slug))
        assert f"methods/{card.slug}.md" in navigation
        assert f"({card.slug}.md)" in pages["methods/index.md"]
    assert "--batch-size" in pages["methods/settings.md"]


def test_the_claim_of_a_built_method_is_shown(generate: ModuleType, tmp_path: Path) -> None:
    assert generate.claim_section("dcl", tmp_path) == []
    assert generate.claims_table(tmp_path) == "No result is stored yet."
    entry = {
        "claim": "DCL beats InfoNCE.",
        "data": "digits",
        "score": "knn accuracy",
        "seeds": 2,
        "arms": {"dcl": {}, "infonce": {}},
        "values": {
            "linear accuracy": {"batch 32": {"dcl": [0.8, 0.9], "infonce": [0.8, 0.8]}},
            "knn accuracy": {"batch 32": {"dcl": [0.5, 0.7], "infonce": [0.4, 0.5]}},
        },
        "differences": {"batch 32": {"infonce": {"mean": 0.15, "low": -0.05, "high": 0.35}}},
        "verdict": "against infonce, batch 32: no difference | that this size could show",
    }
    (tmp_path / "dcl.json").write_text(json.dumps(entry))
    (tmp_path / "dcl.svg").write_text("<svg/>")
    shown = "\n".join(generate.claim_section("dcl", tmp_path))
    assert "DCL beats InfoNCE." in shown
    assert "(claims/dcl.svg)" in shown
    decides = "| knn accuracy | batch 32 | dcl | 0.600 | infonce | 0.450 | +0.150 | -0.485 to +0.785 |"
    beside = "| linear accuracy | batch 32 | dcl | 0.850 | infonce | 0.800 | +0.050 | -0.585 to +0.685 |"
    assert f"{decides}\n{beside}" in shown
    row = generate.claims_table(tmp_path).splitlines()[-1]
    assert row.startswith(
        "| [dcl](methods/dcl.md) | DCL beats InfoNCE. | digits, knn accuracy, 2 seeds on both sides. |"
    )
    assert row.endswith("| against infonce (batch 32) +0.150 [-0.050, +0.350] |")
    assert "no difference \\| that" not in row
    assert "at any size" not in shown
    assert "methods/dcl.md" not in generate.facts_table(tmp_path)
    entry["differences"]["batch 32"]["infonce"]["low"] = 0.05
    entry["fact"] = {"says": "q is below 1.", "numbers": {"q": 0.123456}, "holds": True}
    (tmp_path / "dcl.json").write_text(json.dumps(entry))
    assert "**+0.150** [+0.050" in generate.claims_table(tmp_path)
    assert "**What holds at any size.** q is below 1. (q 0.123)" in generate.claim_section("dcl", tmp_path)
    assert generate.facts_table(tmp_path).endswith("| [dcl](methods/dcl.md) | q is below 1. (q 0.123) |")


def test_the_readme_says_how_many_systems_are_ready(
    generate: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = tmp_path / "README.md"
    begin, end = generate.MARKERS["state"]
    readme.write_text(f"# Head\n{begin}\nold\n{end}\ntail\n")
    assert generate.main(["--check", str(readme)]) == 1
    assert "out of date" in capsys.readouterr().out
    assert generate.main([str(readme)]) == 0
    assert generate.main(["--check", str(readme)]) == 0
    text = readme.read_text()
    assert text.startswith(f"# Head\n{begin}\n")
    assert text.endswith(f"{end}\ntail\n")
    ready = [c.built for c in catalog.all_cards() if not c.baseline]
    told = "All 47 systems and " if all(ready) else f"{sum(ready)} of 47 systems and "
    assert f"**{told}" in text
    assert "old" not in text
    with pytest.raises(SystemExit, match="no place for 'state'"):
        generate.with_generated("no markers")
    assert generate.main(["--check", str(ROOT / "README.md")]) == 0, "run: python docs/_generate.py README.md"


def test_the_readme_is_short_and_shows_two_commands_first() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 160
    assert max(map(len, lines)) <= 140
    shown = [line.split()[1] for line in lines[:25] if line.startswith("make ")]
    assert shown == ["demo", "test"]


def test_every_card_is_chosen_by_its_job_or_listed_as_not_built(generate: ModuleType) -> None:
    assert set(generate.JOBS) >= set(catalog.values("job"))
    ready, _, waiting = generate.choose_tables().partition("## Not built yet")
    for card in catalog.all_cards():
        assert (f"| [{card.slug}](" in ready) == card.built
        assert (f"| [{card.slug}](" in waiting) == (not card.built)
        if card.built and not card.baseline:
            section = ready.partition(f"## {generate.JOBS[card.job]}\n")[2].partition("\n## ")[0]
            assert f"| [{card.slug}](" in section


def test_both_guides_name_the_same_ten_steps() -> None:
    guide = re.findall(r"^### (\d+)\. (.+)$", (ROOT / "docs" / "add-a-method.md").read_text(), re.MULTILINE)
    short = re.findall(r"^(\d+)\. \*\*(.+?)\*\*", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert guide == short
    assert [number for number, _ in guide] == [str(k) for k in range(1, 11)]


def test_flags_in_the_docs_exist() -> None:
    """A flag in the pages is a setting, an option of a built method, one of a command, or another program's."""
    known = {o.flag for slug in BUILT for o in catalog.options(slug)} | {o.flag for o in catalog.settings()}
    roles = {f"--{role}" for slug in BUILT for role in catalog.roles(slug)}
    train = {
        "--config",
        "--resume",
        "--own-views",
        "--finish-now",
        "--dry-run",
        "--quiet",
        "--report",
        "--no-report",
        "--no-name",
        "--name",
    }
    of_commands: set[str] = set()
    for add_options in (add_grid_options, *(c.add_options for c in (*COMMANDS.values(), *BENCHMARKS.values()))):
        parser = Parser()
        add_options(parser)
        of_commands |= set(parser._option_string_actions)
    others = {"--debug", "--site-dir", "--strict", "--check", "--gpus-per-node", "--nproc-per-node", "--nnodes"}
    others |= {
        "--rdzv-backend",
        "--rdzv-endpoint",
        "--signal",
        "--requeue",
        "--ntasks-per-node",
        "--cpus-per-task",
        "--standalone",
    }
    for page in [*(ROOT / "docs").glob("*.md"), ROOT / "CONTRIBUTING.md", ROOT / "README.md"]:
        text = re.sub(r"^python benchmarks/.*", "", page.read_text(), flags=re.MULTILINE)  # scripts of their own
        used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))
        assert used <= known | roles | train | of_commands | others, page.name


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_asks_nothing_of_the_net(tmp_path: Path) -> None:
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "methods" / "barlow-twins" / "index.html").is_file()
    reference = (tmp_path / "reference" / "objectives" / "index.html").read_text()
    assert 'id="selftaught.objectives.vicreg.vicreg"' in reference
    assert ":func:" not in reference
    for page in tmp_path.rglob("*.html"):
        loaded = re.findall(r"<(?:script|img|link)[^>]+(?:src|href)=\"?(https?://[^\" >]+)", page.read_text())
        assert loaded == [], page
