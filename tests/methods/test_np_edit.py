"""NP-Edit as wired: stages, who learns from what, its data, instructions on the command line, judging, baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import selftaught
from selftaught import evaluation, methods, networks, objectives
from selftaught.cli import main
from selftaught.data import open_source
from selftaught.data.editing import EDIT_KINDS, Edit, edits, questions
from selftaught.engine.loader import DataModule
from selftaught.errors import UserError

TINY: dict[str, Any] = {
    "base": "unet", "image_size": 16, "flow_width": 8, "flow_patch": 2, "judge_width": 8, "teacher_steps": 2,
    "judge_steps": 2, "warmup_steps": 2, "fake_updates": 2,
}  # fmt: skip
RUN: dict[str, Any] = {"steps": 2, "batch_size": 8, "workers": 0, "quiet": True, "loggers": ["none"], "device": "cpu"}
DATA = "shapes?side=16&train=12&test=6"


def _method(**options: Any) -> Any:
    torch.manual_seed(0)
    return methods.get("np-edit")(**TINY | options)


def _batch(method: Any, rows: int = 8) -> dict[str, Any]:
    data = DataModule(open_source(DATA, split="train"), method, batch_size=rows, workers=0)
    (batch,) = list(data.train_dataloader())[:1]
    return method.on_after_batch_transfer(batch)


# ---- data ------------------------------------------------------------------------------------------------------------
def test_generated_edits_recolour_and_nothing_else() -> None:
    source = open_source("shapes?train=4&test=2", split="all")
    assert len(source) == 6 * 4
    assert source.generated
    for i in range(0, 24, 5):
        sample = source.sample(i)
        assert sample["text"] != sample["target"]
        assert sample["instruction"].split()[-1] == sample["target"].split()[1]
        assert sample["text"].split()[2] == sample["target"].split()[2]
        before, after = (sample[k].astype(float) / 255 for k in ("image", "edited"))
        hit, outside = evaluation.reached(before[None], after[None], after[None])
        assert (hit[0], outside[0] < 0.03) == (1, True)
        assert evaluation.reached(before[None], before[None], after[None])[0][0] == 0
    train, test = (open_source("shapes?train=4&test=2", split=split) for split in ("train", "test"))
    assert not set(train.values["picture"]) & set(test.values["picture"])
    with pytest.raises(UserError, match="side=4"):
        open_source("shapes?side=4")


def _pictures(folder: Path, names: list[str]) -> Path:
    rng = np.random.default_rng(0)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), rng.integers(0, 256, (20, 24, 3), dtype=np.uint8))
    return folder


def test_a_table_of_edits_beside_pictures(tmp_path: Path) -> None:
    folder = _pictures(tmp_path / "photos", ["a.png", "sub/b.png", "done/a.png"])
    (folder / "edits.csv").write_text(
        "name,instruction,target,text,kind,edited\n"
        "a.png,make it night,a street at night,a street,background,done/a.png\n"
        "sub/b,add a hat,a dog with a hat,a dog,add,done/a.png\n"
        "a.png,remove the car,a street without cars,a street,remove,done/a.png\n"
    )
    source = edits(open_source(folder, split="all"))
    assert list(source.names) == ["a-edit1.png", "sub/b.png", "a-edit2.png"], "a.png is not done/a.png"
    assert source.describe().startswith("photos/: 3 edits of 2 images, 3 channels")
    sample = source.sample(1)
    assert (sample["text"], sample["instruction"], sample["kind"]) == ("a dog", "add a hat", "add")
    assert source.sample(0)["edited"].shape == (20, 24, 3)
    assert edits(source) is source
    (folder / "edits.csv").write_text("Name, instruction\na.png,make it night\n")
    with pytest.raises(UserError, match="needs the columns name, instruction and target"):
        edits(open_source(folder, split="all"))
    (folder / "edits.csv").write_text("Name, Instruction,Target ,kind\na.png,x,y,paint\n")
    with pytest.raises(UserError, match=r"edits.csv: row 1, of a.png: .*'paint'"):
        edits(open_source(folder, split="all"))


def test_a_table_of_edits_says_what_is_not_made_use_of(tmp_path: Path) -> None:
    folder = _pictures(tmp_path / "photos", ["a.png", "sub/b.png", "more/b.png"])
    table = folder / "edits.csv"
    table.write_text(
        "name;instruction;target;kind;edited\n"
        '.\\sub\\b.png;"make it ""night""; please";a street, at night;Attribute;a.png\n'
        "gone.png;add a hat;a dog with a hat;add;\n"
        "a.png;remove the car;a street;remove;\n"
    )
    source = edits(open_source(folder, split="all"))
    assert list(source.names) == ["sub/b.png", "a.png"]
    assert source.sample(0, ["instruction", "kind"]) == {"instruction": 'make it "night"; please', "kind": "attribute"}
    assert source.notes[-2:] == [
        "edits.csv: 1 edit of no picture here left out (gone.png)",
        "edits.csv: 1 of 2 edits have a result; it takes all to make use of them",
    ]
    part = edits(open_source(folder, split="all").subset([0]))
    assert part.notes[-1].startswith("edits.csv: 1 edit of no picture"), "a picture of another part is a picture"
    for row, told in (
        ("b,x,y,", "b may be more/b.png or sub/b.png; write names with their folders"),
        ("a,x,y,lost.png", "row 1, of a: its result lost.png is no picture of the folder"),
        ("a,x,,", "row 1, of a: an edit needs an instruction and a caption of its result"),
    ):
        table.write_text(f"name,instruction,target,edited\n{row}\n")
        with pytest.raises(UserError, match=told):
            edits(open_source(folder, split="all"))


def test_captions_and_classes_are_exchanged(tmp_path: Path) -> None:
    folder = _pictures(tmp_path / "photos", ["cat/1.png", "cat/2.png", "dog/3.png"])
    source = edits(open_source(folder, split="all"))
    assert [source.sample(i)["instruction"] for i in range(3)] == ["turn it into dog"] * 2 + ["turn it into cat"]
    assert {source.sample(i)["kind"] for i in range(3)} == {"replace"}
    with pytest.raises(UserError, match=r"nothing to edit them into; put edits.csv"):
        edits(open_source(folder, split="all").subset([0, 1]))


def test_questions_go_by_the_kind_of_edit() -> None:
    assert all("a blue dog" in questions("a blue dog", kind)[0] for kind in EDIT_KINDS)
    assert "subject" in questions("a dog on the moon", "subject")[1]
    with pytest.raises(UserError, match="it may be add, remove"):
        questions("x", "paint")
    with pytest.raises(UserError, match="needs an instruction"):
        Edit(" ", "a", "b")


# ---- numbers ---------------------------------------------------------------------------------------------------------
def test_the_protocol_by_hand() -> None:
    before = np.zeros((2, 4, 4, 3))
    truth = before.copy()
    truth[:, :2] = 0.8
    after = before.copy()
    after[0, :2] = 0.75
    after[1, 2:] = 0.5
    said = {"followed": np.array([0.9, 0.4]), "kept": np.array([0.4, 0.1]), "taught": np.array([0.9, 0.9])}
    found = evaluation.editing(before, after, truth=truth, **said)
    expected = {"success": 0.5, "outside": 0.25, "right": 0.5, "followed": 0.5, "kept": 0.0, "own_judge": 1.0}
    assert {k: found[k].mean for k in expected} == pytest.approx(expected)
    assert found["overall"].mean == pytest.approx((0.6 + 0.2) / 2)
    assert next(iter(found.numbers)) == "right", "what pixels say comes first"
    assert found.figures["untouched"] == ["kept", "outside"]
    np.testing.assert_allclose(evaluation.vie_score(np.array([4.0]), np.array([9.0])), 6)
    with pytest.raises(UserError, match="probability"):
        evaluation.editing(before, after, followed=np.array([2.0, 0]), kept=np.array([0.0, 0]))


# ---- learning --------------------------------------------------------------------------------------------------------
def test_the_losses_are_the_objectives_on_the_right_inputs() -> None:
    method = _method(guidance=2.0, one_step_share=0.0)
    batch = _batch(method)
    for parameter in method.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    y = 2 * batch["image"] - 1
    said, wanted = method.words(batch["instruction"]), method.words(batch["target"])
    torch.manual_seed(3)
    made = method.unrolled(y, said)
    torch.manual_seed(3)
    eps = torch.randn_like(y)
    t = torch.tensor([0.25, 0.5, 0.75])[torch.randint(0, 3, (len(y),))]
    clean, _ = objectives.unroll_flow(lambda x, at: method.generator(x, at, said, y), eps, t)
    torch.testing.assert_close(made, clean)
    torch.manual_seed(4)
    found = method.matching_loss(made, wanted)
    torch.manual_seed(4)
    t, e = 0.02 + 0.96 * torch.rand(len(y)), torch.randn_like(made)
    x_t = (1 - t.view(-1, 1, 1, 1)) * made + t.view(-1, 1, 1, 1) * e
    bare = method.teacher(x_t, t, method.words([""] * len(y)))
    real = bare + 2 * (method.teacher(x_t, t, wanted) - bare)
    by_hand = objectives.match_distributions(made, x_t, real, method.fake(x_t, t, wanted), t)
    torch.testing.assert_close(found, by_hand)
    torch.manual_seed(5)
    found = method.identity_loss(batch)
    torch.manual_seed(5)
    t, eps = torch.rand(len(y)), torch.randn_like(y)
    v = method.generator(objectives.noised(y, eps, t), t, method.words(batch["text"]), y)
    torch.testing.assert_close(found, (v - (eps - y)).square().mean())
    logits = method.judges.answers(batch, method.decoded(made), "judge")
    by_hand = -torch.nn.functional.logsigmoid(logits[..., 0] - logits[..., 1]).mean()
    torch.testing.assert_close(method.judges.loss(batch, method.decoded(made)), by_hand)
    terms = method.policy_terms(batch)
    terms["loss"].backward()
    assert all(p.grad is None for p in method.judges.parameters())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in method.generator.parameters())


def test_both_judges_learn_that_grain_is_not_the_same_picture() -> None:
    """Before grain was in their lesson, noise of 0.2 was "the same" to them in 38 to 83 % of these cases."""
    method = _method(judge_width=16)
    batch, judges = _batch(method, 40), method.judges.small
    optimiser = torch.optim.Adam(judges.parameters(), lr=5e-3)
    for _ in range(80):
        optimiser.zero_grad()
        sum(method.judges.lesson(name, batch, list(range(40))) for name in judges).backward()
        optimiser.step()

    def kept(edited: torch.Tensor, name: str) -> float:
        with torch.no_grad():
            logits = method.judges.answers(batch, edited, name, (1,))[:, 0]
        return float((logits[:, 0] > logits[:, 1]).double().mean())

    x = batch["image"]
    for name in judges:
        assert kept(networks.mixed_colours(x), name) > 0.8
        assert kept(x + 0.02 * torch.randn_like(x), name) > 0.7
        assert kept(x + 0.2 * torch.randn_like(x), name) < 0.3
        assert kept(x.roll(12, 0), name) < 0.3


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"use_vlm": False, "use_dmd": False}, "nothing to learn from"),
        ({"t_set": "0.5,2"}, "t_set='0.5,2'"),
        ({"base": "gan"}, "base='gan'"),
        ({"judge": "small+small"}, "every judge once"),
        ({"judge_form": "vocabulary"}, "yes and no alone"),
        ({"image_size": 18}, "divide"),
    ],
)
def test_errors(options: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match):
        _method(**options)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return selftaught.train("np-edit", DATA, out=str(tmp_path_factory.mktemp("np-edit") / "run"), **TINY, **RUN)


def test_stages_and_who_learns_in_them(run: Any) -> None:
    states = {
        stage: torch.load(run.path / f"stages/{stage}/checkpoints/{stage}.ckpt", weights_only=True)["state_dict"]
        for stage in ("teacher", "judge", "warmup", "edit")
    }

    def moved(a: str, b: str, part: str) -> bool:
        names = [n for n in states[a] if n.startswith(part)]
        assert names
        return any(not torch.equal(states[a][n], states[b][n]) for n in names)

    parts = {"teacher": "editor.teacher", "judges": "editor.judges", "generator": "editor.generator", "fake": "fake"}
    changes = {k: [moved(a, b, part) for a, b in (("teacher", "judge"), ("judge", "warmup"), ("warmup", "edit"))]
               for k, part in parts.items()}  # fmt: skip
    assert changes == {
        "teacher": [False] * 3,
        "judges": [True, False, False],
        "generator": [True, True, True],  # begun as the teacher, warmed up, edited
        "fake": [False, False, True],
    }


def test_a_run_edits_by_an_instruction(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _pictures(tmp_path / "photos", ["a.png", "sub/b.jpg"])
    told = ["--out", str(tmp_path / "out"), "--instruction", "make it red"]
    assert main(["apply", str(run.path), str(folder), *told]) == 0
    made = cv2.imread(str(tmp_path / "out/a.png"))[..., ::-1]
    assert made.shape == (16, 16, 3)
    assert (tmp_path / "out/sub/b.jpg").exists()
    assert "squares of 16 pixels a side" in capsys.readouterr().out
    single = ["--out", str(tmp_path / "one.png"), "--instruction", "make it red"]
    assert main(["apply", str(run.path), str(folder / "a.png"), *single]) == 0
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "out/a.png").read_bytes()
    assert run.apply(folder, tmp_path / "out", instruction="make it red") == 0  # finished before
    with pytest.raises(UserError, match="other options"):
        run.apply(folder, tmp_path / "out", instruction="make it blue")
    with pytest.raises(UserError, match="give instruction"):
        run.apply(folder, tmp_path / "other")
    assert run.apply(DATA, tmp_path / "own") == 18 * 4
    assert run.export("safetensors").exists()
    page = run.report().read_text(encoding="utf-8")
    assert "make it" in page
    found = run.evaluate()["editing"]
    assert found["raw"]["change"].mean == 0
    assert found["raw"]["right"].mean == 0
    assert "seen" not in found["this"].figures, "its test pictures were kept away"
    with pytest.raises(UserError, match="it may be editing"):
        run.evaluate(protocols=["knn"])


def test_edits_of_pictures_that_it_learnt_from_are_said_to_be_so(run: Any, tmp_path: Path) -> None:
    folder = _pictures(tmp_path / "photos", [f"{i}.png" for i in range(8)])
    for i in range(8):
        (folder / f"{i}.txt").write_text(f"a street at {i}")
    begun = {"teacher_steps": 0, "judge_steps": 0, "warmup_steps": 0, "init": str(run.path), "steps": 1}
    own = selftaught.train("np-edit", folder, out=str(tmp_path / "run"), **TINY | RUN | begun)
    assert own.summary()[1] == f"to know how good it is: selftaught evaluate {tmp_path / 'run'}", "it has edits"
    assert own.evaluate(baselines=False)["editing"]["this"].note == "on pictures that it learnt from"
    other = own.evaluate(DATA, baselines=False)["editing"]["this"]
    assert other.note == ""


@pytest.mark.parametrize("options", [{"lora": 2}, *({"baseline": b} for b in ("copy", "supervised", "policy"))])
def test_rivals_begin_from_a_run(run: Any, options: dict[str, Any], tmp_path: Path) -> None:
    begun: dict[str, Any] = {"teacher_steps": 0, "judge_steps": 0, "warmup_steps": 0, "init": str(run.path)}
    if "lora" in options:
        begun = {"teacher_steps": 1, "judge_steps": 0, "warmup_steps": 1}
    given = TINY | RUN | {"steps": 1} | begun | options
    found = selftaught.train("np-edit", DATA, out=str(tmp_path / "run"), **given)
    if options.get("baseline") == "copy":
        assert not found.method.learns
        assert found.evaluate()["editing"]["this"]["change"].mean == 0
    elif "lora" in options:
        trained = [n for n, p in found.method.generator.named_parameters() if p.requires_grad]
        assert trained
        assert all(n.endswith((".a", ".b")) for n in trained)
    else:
        own, old = (m.generator.state_dict() for m in (found.method, run.method))
        assert any(not torch.equal(own[n], old[n]) for n in own)
