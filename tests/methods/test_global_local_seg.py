"""Global and local contrast as wired: what each stage trains, its batches, runs on a user's volumes and back."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

import selftaught
from selftaught import methods, objectives
from selftaught.data import open_source
from selftaught.errors import UserError
from selftaught.methods.global_local_seg import ring
from selftaught.run.outputs.segmentation import coloured_classes

TINY = {
    "image_size": 32, "widths": "4-8-8", "decoder_blocks": 1, "norm_momentum": 0.1, "structures": "background,a,b",
}  # fmt: skip
RUN = TINY | {
    "preset": "laptop", "structures": "", "steps": 8, "global_steps": 6, "local_steps": 4, "batch_size": 8,
    "finetune_batch": 6, "look_every": 4, "labelled_volumes": 1, "validation_volumes": 1, "loggers": ["none"],
    "quiet": True,
}  # fmt: skip


def made(**options):
    torch.manual_seed(0)
    return methods.get("global-local-seg")(**TINY | options, channels=1)


def slices(count: int = 8) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(count, 1, 1, 32, 32, generator=generator)
    return {"volume": x, "mask": torch.randint(0, 3, (count, 32, 32), generator=generator)}


def test_the_ring_is_blocks_of_slices_and_copies() -> None:
    x, first, second = torch.arange(8), torch.arange(8) + 100, torch.arange(8) + 200
    found = ring(x, first, second, 4).tolist()
    assert found == [
        *range(4), *range(100, 104), *range(4, 8), *range(104, 108),
        *range(4), *range(200, 204), *range(4, 8), *range(204, 208),
    ]  # fmt: skip
    with pytest.raises(UserError, match="multiple of 3"):
        ring(x, first, second, 3)


@pytest.mark.parametrize(
    ("options", "stage", "moved"),
    [
        ({}, "global", {"net.encoder", "g1"}),
        ({"global_strategy": "R"}, "global", {"net.encoder", "g1"}),
        ({"global_strategy": "D-"}, "global", {"net.encoder", "g1"}),
        ({"global_strategy": "rotation"}, "global", {"net.encoder", "turns"}),
        ({"global_strategy": "inpainting"}, "global", {"net.encoder", "net.blocks", "net.last", "restore"}),
        ({"global_strategy": "restoration"}, "global", {"net.encoder", "net.blocks", "net.last", "restore"}),
        ({}, "local", {"net.blocks", "g2"}),
        ({"local_strategy": "D", "regions": 9, "region_size": 1}, "local", {"net.blocks", "g2"}),
        ({"region_projection": False}, "local", {"net.blocks", "g2"}),
        ({}, "finetune", {"net.encoder", "net.blocks", "net.last", "net.classify"}),
        ({"mixup": 0.2}, "finetune", {"net.encoder", "net.blocks", "net.last", "net.classify"}),
    ],
)
def test_each_stage_moves_its_own_part(options: dict, stage: str, moved: set[str]) -> None:
    method = made(**options)
    method.enter_stage(stage)
    loss = method.loss(slices())["loss"]
    assert torch.isfinite(loss)
    loss.backward()
    names = {name for name, p in method.named_parameters() if p.grad is not None and p.grad.any()}
    assert {part for part in moved if not any(n.startswith(part) for n in names)} == set()
    assert all(any(n.startswith(part) for part in moved) for n in names)
    trained = {id(p) for p in method.trained_modules().parameters()}
    assert {id(p) for p in method.parameters() if p.requires_grad} == trained
    if stage == "local":
        assert not any(n.startswith("net.blocks.1") for n in names)


def test_losses_are_the_objectives_of_the_layouts() -> None:
    method = made(local_strategy="D")
    method.enter_stage("global")
    x = slices()["volume"][:, :, 0]
    torch.manual_seed(3)
    found = method.loss(slices())["loss"]
    torch.manual_seed(3)
    views = selftaught.views
    first, second = (views.shift_intensity(views.random_crops(x)) for _ in range(2))
    z = method.g1(method.net.encoder(ring(x, first, second, 4))[-1])
    torch.testing.assert_close(found, objectives.global_domain(z))
    method.enter_stage("local")
    torch.manual_seed(3)
    found = method.loss(slices())["loss"]
    torch.manual_seed(3)
    both = torch.cat([views.shift_intensity(x), views.shift_intensity(x)])
    f = method.g2(method.net.decode(method.net.encoder(both), 1))
    torch.testing.assert_close(found, objectives.local_domain(f, weight=method.g2.weight))
    method.eval()
    torch.testing.assert_close(method._dice(x, slices()["mask"]), objectives.soft_dice(method.net(x), slices()["mask"]))


def test_the_frozen_encoders_norms_follow_the_data() -> None:
    method = made()
    method.enter_stage("local")
    method.train()
    before = copy.deepcopy(method.net.encoder.state_dict())
    method.loss(slices())
    after = method.net.encoder.state_dict()
    assert any(not torch.equal(before[n], after[n]) for n in after if "running" in n)


def test_self_training_looks_at_both_and_its_teacher_stays() -> None:
    method = made(self_training=True, global_strategy="none", local_strategy="none")
    assert method.stages == ("finetune", "self-train")
    method.enter_stage("self-train")
    assert torch.equal(method.teacher.classify.weight, method.net.classify.weight)
    method.train()
    assert not method.teacher.training
    terms = method.loss({"labelled": slices(), "data": slices(4)})
    torch.testing.assert_close(terms["loss"], (terms["annotated"] + terms["own masks"]) / 2)
    terms["loss"].backward()
    assert all(p.grad is None for p in method.teacher.parameters())


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match="decoder_blocks=3"):
        made(decoder_blocks=3)
    with pytest.raises(UserError, match="too small for 13 regions"):
        made(image_size=16, widths="4-8-8-8", local_strategy="D")
    with pytest.raises(UserError, match="multiple of 4"):
        made(image_size=30)
    with pytest.raises(UserError, match="no masks to learn structures from"):
        methods.get("global-local-seg").streams(open_source("brain"), {}, None)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """NIfTI scans of several sizes with thick slices and an orientation of their own, masks of 0, 3 and 7 beside."""
    nibabel = pytest.importorskip("nibabel")
    root = tmp_path_factory.mktemp("hospital")
    source = open_source("phantoms?train=7&test=1&depth=8&side=40", split="all")
    for folder in ("scans", "masks"):
        (root / folder).mkdir()
    for i in range(len(source)):
        sample = source.sample(i)
        volume, mask = sample["volume"][:, : 40 - 2 * (i % 3), :, 0], sample["mask"][:, : 40 - 2 * (i % 3)]
        affine = np.diag([1.0, -1.5, 6.0, 1.0])
        affine[:3, 3] = 5, -7, i
        for folder, voxels in (("scans", volume.astype(np.int16) * 3), ("masks", np.array([0, 3, 7])[mask])):
            image = nibabel.Nifti1Image(voxels.transpose(2, 1, 0)[::-1].astype(np.int16), affine)
            nibabel.save(image, root / folder / f"patient{i}.nii.gz")
    return root


@pytest.fixture(scope="module")
def run(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> selftaught.Run:
    """A finished run on all scans, one of them annotated."""
    out = tmp_path_factory.mktemp("runs") / "seg"
    return selftaught.train("global-local-seg", f"pairs:{scans}?volume=scans&mask=masks", out=str(out), **RUN)


def test_it_segments_a_users_scans_in_their_own_space(run: selftaught.Run, scans: Path, tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    assert run.method.structures == ["0", "3", "7"]
    assert run.apply(scans / "scans", tmp_path / "found") == 8
    for i in (0, 1):
        before = nibabel.load(scans / "scans" / f"patient{i}.nii.gz")
        after = nibabel.load(tmp_path / "found" / f"patient{i}.nii.gz")
        assert after.shape == before.shape
        np.testing.assert_allclose(after.affine, before.affine)
        assert set(np.unique(np.asarray(after.dataobj))) <= {0, 3, 7}
        volume = open_source(scans / "scans", modality="volume", split="all")
        classes = run.method.segment(volume.read(i), volume.spacing[i])
        back = np.array([0, 3, 7])[classes].transpose(2, 1, 0)[::-1]
        found = np.asarray(after.dataobj)
        assert (found == back).all() or (found == back[:, ::-1]).all() or (found == back[::-1]).all()
    assert run.apply(scans / "scans", tmp_path / "found").kept == 8
    assert int(run.apply(scans / "scans" / "patient1.nii.gz", tmp_path / "one.nii.gz")) == 1
    one = nibabel.load(tmp_path / "one.nii.gz")
    np.testing.assert_array_equal(np.asarray(one.dataobj), found)
    with pytest.raises(UserError, match="give a folder"):
        run.apply(scans / "scans" / "patient1.nii.gz", tmp_path / "one.nii")


def test_it_is_judged_on_volumes_that_it_did_not_learn_from(run: selftaught.Run, scans: Path) -> None:
    found = run.evaluate()
    assert set(found["dice"]) == {"this", "random"}
    assert {"dice", "dice 3", "dice 7"} <= set(found["dice"]["this"].numbers)
    judged = [row["name"] for row in found["dice"]["this"].figures["worst_first"]]
    assert len(judged) == 6
    other = run.evaluate(f"pairs:{scans}?volume=scans&mask=masks&missing=drop", protocols=["dice"], baselines=False)
    assert [row["name"] for row in other["dice"]["this"].figures["worst_first"]] == judged  # by voxels, not by its name
    assert "2 volumes left out that it learnt from" in other["dice"]["this"].note
    place = run.evaluate(protocols=["slice-position"], baselines=False)["slice-position"]["this"]["accuracy"]
    assert 0 <= place.mean <= 1
    assert "data:image" in run.report().read_text(encoding="utf-8")
    with pytest.raises(UserError, match="it may be dice or slice-position"):
        run.evaluate(protocols=["knn"])
    assert run.export("safetensors", scans / "net.safetensors").exists()


def test_a_run_that_loses_power_ends_in_the_same_weights(run: selftaught.Run, scans: Path, tmp_path: Path) -> None:
    kind = methods.get("global-local-seg")
    after = kind.after_step

    def power_cut(self: object) -> None:
        after(self)
        if self.stage == "finetune" and self.steps == 6:
            raise RuntimeError("power cut")

    options = RUN | {"out": str(tmp_path / "cut"), "checkpoint_steps": 4}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kind, "after_step", power_cut)
        with pytest.raises(RuntimeError, match="power cut"):
            selftaught.train("global-local-seg", f"pairs:{scans}?volume=scans&mask=masks", **options)
    cut = selftaught.train("global-local-seg", resume=tmp_path / "cut", quiet=True)
    for name, value in run.method.net.state_dict().items():
        torch.testing.assert_close(cut.method.net.state_dict()[name], value, rtol=0, atol=0)


def test_annotated_volumes_of_their_own_and_others_that_validate(scans: Path, tmp_path: Path) -> None:
    masked = f"pairs:{scans}?volume=scans&mask=masks"
    options = RUN | {"global_strategy": "none", "local_strategy": "none", "self_training": True, "steps": 4}
    done = selftaught.train(
        "global-local-seg", str(scans / "scans"), labelled=masked, validation=f"{masked}&missing=drop",
        out=str(tmp_path / "run"), **options | {"labelled_volumes": 3},
    )  # fmt: skip
    assert list(done.layout.read_state()["stages"]) == ["finetune", "self-train"]
    with pytest.raises(UserError, match=rf"has no masks; judge it on annotated ones, such as data='pairs:{scans}"):
        done.evaluate()
    assert f"selftaught evaluate {tmp_path / 'run'} --data '{masked}'" in done.summary()[1]
    with pytest.raises(UserError, match="learnt from all 8 masks"):
        done.evaluate(masked)
    with pytest.raises(UserError, match=r'labelled=".*" has no masks'):
        selftaught.train("global-local-seg", masked, labelled=str(scans / "scans"), **options)


def test_classes_are_laid_over_a_slice() -> None:
    shown = coloured_classes(np.full((4, 4), 0.5), np.array([[0, 0, 1, 2]] * 4))
    assert shown.shape == (4, 4, 3)
    assert np.ptp(shown[0, 0]) == 0
    assert np.ptp(shown[0, 2]) > 30
    assert (shown[0, 2] != shown[0, 3]).any()


@pytest.mark.slow
def test_it_learns_to_segment_from_one_volume(tmp_path: Path) -> None:
    options = RUN | {"widths": "8-16-32", "steps": 50, "global_steps": 20, "local_steps": 5, "look_every": 25}
    run = selftaught.train("global-local-seg", "phantoms?train=8&test=3", out=str(tmp_path / "run"), **options)
    dice = run.evaluate(protocols=["dice"], baselines=False)["dice"]["this"]
    assert dice["dice outer"].mean > 0.7
    assert run.export("onnx", tmp_path / "net.onnx").exists()
