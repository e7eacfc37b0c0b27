"""Batches: any start in the stream, the same views wherever they are made, broken samples replaced and counted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from skimage import data as photographs

from selftaught import DataModule, UserError, methods, views
from selftaught.data import Scale, Source, open_source
from selftaught.engine.batches import Batches
from selftaught.engine.in_order import evaluation_batches
from selftaught.engine.loader import check_batch_size, training_part
from selftaught.engine.orders import Shuffled
from selftaught.engine.streams import SkipLog, Stream, signals_held, worker_init
from tests.conftest import TINY, write_photos
from tests.forked import run

SMALL = {"encoder": "resnet10-narrow", "image_size": 32, "stem": "standard", "projector": "16-8"}


def photos(n: int = 20, side: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def stream(dataset: Batches, start: int, total: int) -> list[dict]:
    keys = Stream(Shuffled(len(dataset)), 4, seed=1, start=start, total=total, rank=0, world=1)
    return [dataset[key] for key in keys]


def test_a_stream_cut_anywhere_goes_on_with_the_same_batches() -> None:
    method = methods.SimCLR(**SMALL)
    dataset = Batches(open_source(photos(), split="all"), method.views(), seed=1)
    whole = stream(dataset, 0, 13)  # two and a half epochs of five batches
    for start in (0, 3, 5, 12):
        for a, b in zip(whole[start:], stream(dataset, start, 13), strict=True):
            assert torch.equal(a["index"], b["index"])
            assert all(torch.equal(x, y) for x, y in zip(a["views"], b["views"], strict=True))
    assert sorted(torch.cat([b["index"] for b in whole[:5]]).tolist()) == list(range(20))
    assert not torch.equal(whole[0]["views"][0], whole[0]["views"][1])


def test_views_made_on_the_model_device_are_those_of_the_cpu() -> None:
    method = methods.SimCLR(**SMALL)
    source = open_source(photos(), split="all")
    on_cpu = Batches(source, method.views(), seed=3)[(2, [4, 1, 9])]
    passed = Batches(source, method.views(), seed=3, on_device=True)[(2, [4, 1, 9])]
    assert passed["images"].shape == (3, 3, 40, 40)
    a = method.on_after_batch_transfer(on_cpu)["views"]
    b = method.on_after_batch_transfer(passed)["views"]
    for x, y in zip(a, b, strict=True):
        assert (x - y).abs().max() * 0.25 * 255 <= 2.01  # grey levels
        assert (x - y).abs().mean() * 0.25 * 255 < 0.1


def test_views_on_the_model_device_want_one_size(tmp_path: Path) -> None:
    write_photos(tmp_path / "a", 4, side=40)
    write_photos(tmp_path / "a/more", 4, side=48)
    method = methods.SimCLR(**SMALL)
    dataset = Batches(open_source(tmp_path / "a", split="all"), method.views(), seed=0, on_device=True)
    with pytest.raises(UserError, match="several sizes"):
        dataset[(0, list(range(8)))]


def test_a_broken_sample_is_replaced_by_the_next_and_named(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "p", 12, classes=1)
    (folder / "003.png").write_bytes(b"")
    source = open_source(folder, split="all")
    batch = Batches(source, methods.SimCLR(**SMALL).views(), seed=0)[(0, [2, 3, 7])]
    assert batch["index"].tolist() == [2, 4, 7]
    assert [(source.names[i], bool(reason)) for i, reason in batch["skipped"]] == [("003.png", True)]
    log = SkipLog(source, 0.2, tmp_path / "skipped.csv")
    log.add(batch["skipped"])
    log.add(batch["skipped"])  # the same sample counts once
    assert len((tmp_path / "skipped.csv").read_text().splitlines()) == 2
    with pytest.raises(UserError, match=r"p/?: 1 of 12 samples can't be used, more than 5%.*003\.png"):
        SkipLog(source, 0.05).add(batch["skipped"])
    in_order = list(evaluation_batches(source, methods.SimCLR(**SMALL).evaluation_view(), batch_size=5, workers=0))
    assert [i for b in in_order for i in b["index"].tolist()] == [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11]


def test_two_ranks_share_an_epoch_and_one_epoch_per_lightning_epoch() -> None:
    method = methods.SimCLR(**SMALL)
    module = DataModule(photos(16), method, batch_size=4, workers=0)
    loader = module.train_dataloader()
    first, second = ([b["index"].tolist() for b in loader] for _ in range(2))
    assert len(first) == len(second) == 4
    assert first != second
    parts = [Stream(Shuffled(16), 2, seed=5, start=0, total=4, rank=r, world=2) for r in range(2)]
    both = [set(a) | set(b) for (_, a), (_, b) in zip(*parts, strict=True)]
    one = [set(i) for _, i in Stream(Shuffled(16), 4, seed=5, start=0, total=4, rank=0, world=1)]
    assert both == one


def test_sixteen_bit_images_reach_restoration_at_full_depth() -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (6, 40, 40, 1), dtype=np.uint16)
    method = methods.CBSN(channels=1, width=8, modules=1, patch=24)
    batch = Batches(open_source(deep, split="all"), method.views(), seed=0, pixels="float32")[(0, [0, 1])]
    view = batch["views"][0]
    assert view.dtype == torch.float32
    assert len(torch.unique((view * 65535).round())) > 500  # more than eight bits can tell apart
    assert 0 <= view.min() <= view.max() <= 1


def test_a_batch_of_one_and_a_source_below_a_batch_are_refused() -> None:
    method = methods.SimCLR(**SMALL)
    with pytest.raises(UserError, match="use 2 or more"):
        DataModule(photos(), method, batch_size=1)
    with pytest.raises(UserError, match="fewer than one batch of 64: use batch_size=20 or less"):
        DataModule(photos(), method, batch_size=64)
    with pytest.raises(UserError, match=r"1 sample, fewer than one batch of 8: cut the videos into .*window=64"):
        check_batch_size(open_source("motion?train=1&test=0"), 8, compares=True)


def test_windows_of_one_recording_without_labels_are_all_trained_on() -> None:
    def windows(recordings: list[int]) -> Source:
        return open_source({"x": photos(6, 8), "groups": np.array(recordings)}, split="all")

    assert len(training_part(windows([0] * 6))) == 6
    assert len(training_part(windows([0, 0, 0, 1, 1, 2]))) < 6  # one of three is kept to test on


def test_large_jpegs_are_decoded_at_the_size_that_the_views_need(tmp_path):
    """The views of a reduced decode are those of the whole picture; boxes may snap by an output pixel."""
    picture = cv2.resize(photographs.astronaut(), (1600, 1200), interpolation=cv2.INTER_CUBIC)
    picture = cv2.GaussianBlur(picture, None, 25)
    for k in range(4):
        cv2.imwrite(str(tmp_path / f"{k}.jpg"), picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    source = open_source(str(tmp_path), split="all")
    pipelines = list(views.simclr(64, scale=(0.3, 1.0), strength=0.0, blur=0.0))
    batches = Batches(source, pipelines, seed=0)
    assert source.read(0, batches.min_side).shape == (150, 200, 3)
    reduced = torch.cat(batches[(0, [0, 1, 2, 3])]["views"]).float()
    batches.min_side = None
    whole = torch.cat(batches[(0, [0, 1, 2, 3])]["views"]).float()
    apart = (reduced - whole).abs().mean((1, 2, 3))
    moved = torch.stack([(whole.roll(by, (2, 3)) - whole).abs().mean((1, 2, 3)) for by in ((2, 2), (2, -2))]).amax(0)
    assert (apart < moved).all()
    assert (apart < 0.5).sum() >= 2  # boxes that did not move
    assert Batches(source, list(views.patches(64)), seed=0, pixels="float32").min_side is None


def test_evaluation_views_of_a_folder_of_many_sizes_are_each_image_rendered_alone(tmp_path: Path) -> None:
    """A view that draws nothing keeps its parameters by size; one that draws has each sample's own."""
    rng = np.random.default_rng(0)
    for i, (height, width) in enumerate([(40, 64), (64, 40), (40, 64), (33, 51), (64, 40), (40, 64)]):
        cv2.imwrite(str(tmp_path / f"{i}.png"), rng.integers(0, 256, (height, width, 3), np.uint8))
    source = open_source(str(tmp_path))
    for pipeline in (*views.plain(24), next(iter(views.simclr(24)))):
        (batch,) = evaluation_batches(source, pipeline, workers=0)
        for i, got in enumerate(batch["views"][0]):
            image = source.read(i)
            drawn = pipeline.sample(np.random.Generator(np.random.PCG64([0, i])), *image.shape[:2])
            np.testing.assert_array_equal(got.numpy().transpose(1, 2, 0), views.render(image, pipeline, drawn))


def test_samples_without_label_are_trained_on_and_test_samples_are_not():
    x = np.zeros((12, 8, 8), np.uint8)
    table = {"train_x": x, "train_y": [0, 1, -1] * 4, "test_x": x, "test_y": [0, 1] * 6}
    part = training_part(table)
    assert (len(part), part.labels) == (12, None)
    assert all(name.startswith("train/") for name in part.names)


def test_a_run_of_eight_bits_scales_sixteen_by_their_type():
    wide = np.random.default_rng(0).integers(20_000, 65536, (6, 32, 32, 3)).astype(np.uint16)
    pipeline = methods.SimCLR(**SMALL).evaluation_view()
    by_type = open_source((wide // 257).astype(np.uint8), split="all")
    own = open_source(wide, split="all")
    assert own.value_range[0][0] > 19_000
    for source in (own, own.subset(range(6))):
        (batch,) = evaluation_batches(source, pipeline, value_range=Scale(None, "uint8"), workers=0)
        (wanted,) = evaluation_batches(by_type, pipeline, value_range=Scale(None, "uint8"), workers=0)
        assert (batch["views"][0].int() - wanted["views"][0].int()).abs().max() <= 1


def test_a_method_that_learns_from_labels_refuses_samples_without_one() -> None:
    source = open_source({"images": photos(12), "labels": np.array([0, 1, -1] * 4)}, split="all")
    method = methods.Supervised(classes=2, **{k: v for k, v in SMALL.items() if k != "projector"})
    with pytest.raises(UserError, match="samples without a label, which supervised learns from"):
        DataModule(source, method, batch_size=4, workers=0)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_user_s_mistake_comes_out_of_the_loader_s_processes_as_its_one_line(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source("digits?n=40")
    read = source.read

    def wrong(i: int, *more: Any, **which: Any) -> np.ndarray:
        if i == 7:
            raise UserError("depth.csv: column far is missing; name it with ?column=")
        return read(i, *more, **which)

    monkeypatch.setattr(source, "read", wrong)
    reasons = []
    data = DataModule(
        source, methods.SimCLR(encoder="cnn-small", image_size=8, channels=1), batch_size=8, workers=workers
    )
    data.total_batches = 5
    for batches in (data.train_dataloader(), evaluation_batches(source, None, batch_size=8, workers=workers)):
        with pytest.raises(UserError) as found:
            list(batches)
        reasons.append(str(found.value))
    assert reasons == ["depth.csv: column far is missing; name it with ?column="] * 2


def test_a_skipped_name_that_is_not_utf8_or_looks_like_a_formula_is_listed_as_it_is(tmp_path: Path) -> None:
    source = open_source(np.zeros((2, 8, 8, 3), np.uint8))
    source.names = ["a\udcff.png", "=1+1.png"]
    log = SkipLog(source, 1.0, tmp_path / "s.csv")
    log.add([(0, "broken"), (1, "broken")])
    assert (tmp_path / "s.csv").read_bytes() == b"name,reason\na\xff.png,broken\n'=1+1.png,broken\n"


def test_a_signal_while_processes_are_forked_is_acted_on_afterwards() -> None:
    """Raised in between it would be lost in a hook of the fork, or leave its lock behind."""

    class Stopped(Exception):
        pass

    def stop(signum: int, frame: object) -> None:
        raise Stopped

    steps: list[str] = []
    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(Stopped):  # noqa: PT012 - what comes before it counts
            with signals_held():
                os.kill(os.getpid(), signal.SIGTERM)
                steps.append("forked")
            steps.append("went on")
        assert steps == ["forked"]
        assert signal.getsignal(signal.SIGTERM) is stop
    finally:
        signal.signal(signal.SIGTERM, before)


def test_loader_processes_leave_signals_to_the_parent() -> None:
    """Ctrl-C and the first SIGTERM, which the whole group gets, end none of them; a second SIGTERM does."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            worker_init(0)
            os.write(writer, b"r")
            time.sleep(30)
        finally:
            os._exit(1)
    os.read(reader, 1)
    for signum in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, signum)
        time.sleep(0.05)
        assert os.waitpid(pid, os.WNOHANG)[0] == 0, signum
    os.kill(pid, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 128 + signal.SIGTERM


@pytest.mark.slow
def test_where_there_is_no_fork_loaders_are_spawned(tmp_path: Path) -> None:
    """As on Windows: a system that can only start processes anew trains with loader processes, too."""
    said = run(
        "import multiprocessing\n"
        "multiprocessing.get_all_start_methods = lambda: ['spawn']\n"
        "import selftaught\n"
        "from selftaught.engine import streams\n"
        f"options = {TINY | {'steps': 3, 'workers': 1, 'augment': 'grey', 'loggers': ['none']}!r}\n"
        "selftaught.train('simclr', 'digits?n=64', out='run', **options)\n"
        "print(streams._START_METHOD)\n",
        tmp_path,
    )
    assert said.strip().endswith("spawn")
    assert (tmp_path / "run/encoder.safetensors").exists()


def test_a_loader_process_whose_parent_is_gone_says_nothing() -> None:
    """Python's thread that hands out shared memory prints what ends it by the hook; other faults are still told."""
    script = (
        "import sys\n"
        "from selftaught.engine.streams import worker_init\n"
        "worker_init(0)\n"
        "for error in (BrokenPipeError(), ConnectionResetError(), EOFError(), ValueError('a fault')):\n"
        "    sys.excepthook(type(error), error, None)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "ValueError: a fault"
