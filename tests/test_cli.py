"""The command line: every error is one line that names the mend; every command does what it says."""

from __future__ import annotations

import html
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from selftaught import catalog, methods
from selftaught.catalog import cards
from selftaught.cli import main
from selftaught.cli._command import commands_of
from selftaught.cli.benchmarks import BENCHMARKS
from selftaught.cli.commands import COMMANDS
from selftaught.errors import UserError
from tests.conftest import write_photos


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


QUICK = [
    "--encoder",
    "resnet10-narrow",
    "--stem",
    "standard",
    "--image-size",
    "32",
    "--projector",
    "16-8",
    "--quiet",
    "--workers",
    "0",
]


def error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    code, _, err = run(capsys, *arguments)
    assert code == 2, err
    lines = [line for line in err.splitlines() if line]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


def test_help_and_catalogue_load_nothing_heavy() -> None:
    code = (
        "import sys; from selftaught.cli import main\n"
        "for a in (['methods'], ['methods', 'dcl'], ['methods', 'denoise', '--job', 'restore']): assert main(a) == 0\n"
        "try: main(['train', 'dcl', '--device', 'cpu', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'cv2', 'timm', 'lightning', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("command", "policy"), [("apply", "PASSIVE"), ("train", None), ("evaluate", None)])
def test_only_apply_lets_waiting_threads_sleep(command: str, policy: str | None, tmp_path: Path) -> None:
    """OpenMP reads it when torch is loaded: set before, and only where workers and the model share the cores."""
    code = (
        "import os, sys; from selftaught.cli import main\n"
        f"assert main([{command!r}, 'no-such-run', 'x', '--out', 'y.npy']) == 2\n"
        "print(os.environ.get('OMP_WAIT_POLICY'))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(policy)


def test_all_systems_are_listed_and_unbuilt_ones_say_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, out, _ = run(capsys, "methods")
    for slug in ("dcl", "gopro", "seer", "dynamic-curation", "srgan"):
        assert slug in out
    there = cards.method_file
    monkeypatch.setattr(cards, "method_file", lambda slug: tmp_path if slug == "np-edit" else there(slug))
    monkeypatch.setattr(methods, "_classes", dict)
    _, out, _ = run(capsys, "methods", "np-edit")
    assert "not built yet" in out
    assert "not built yet" in error(capsys, "train", "np-edit", "--data", "digits")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train"], "which method"),
        (["train", "dlc"], "dcl"),
        (["train", "dcl", "--data", "no/such/folder", "--steps", "1"], "no/such/folder"),
        (["train", "dcl", "--data", "digits", "--steps", "0"], "above 0"),
        (["train", "dcl", "--data", "digits", "--lr", "fast"], "--lr"),
        (["train", "dcl", "--data", "digits", "--objective", "nce"], "objective"),
        (["train", "dcl", "--data", "digits", "--preset", "nope"], "imagenet"),
        (["train", "dcl", "--data", "digits", "--temprature", "1"], "temprature"),
        (["train", "dcl", "--data", "digits", "--encoder", "resnet_18"], "resnet18"),
        (["train", "dcl", "--data", "digits", "--batch-size", "100000", "--steps", "1"], "--batch-size"),
        (["train", "c-bsn", "--data", "digits", "--steps", "1"], "--patch"),
        (["train", "c-bsn", "--data", "photos:whole", "--noise", "salt", "--steps", "1"], "--noise"),
        (["train", "dcl", "--config", "no.yaml"], "no.yaml"),
        (["train", "--resume", "no-run"], "no-run"),
        (["evaluate", "no-run"], "no-run"),
        (["report", "no-run"], "no-run"),
        (["export", "no-run"], "no-run"),
        (["apply", "no-run", "x", "--out", "y.npy"], "no-run"),
        (["apply", "no-run", "x", "--out", "y", "--tile", "0"], "no-run: no such run"),
        (["data", "check", "no-folder"], "no-folder"),
        (["data", "fetch", "fashon-mnist"], "fashion-mnist"),
        (["methods", "xyzzy"], "xyzzy"),
        (["benchmark", "claims", "--method", "bicubic"], "dcl"),
        (["frobnicate"], "frobnicate"),
    ],
)
def test_bad_input_is_one_line_that_names_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in error(capsys, *arguments)
    assert not list(tmp_path.glob("runs/*/encoder.safetensors"))


def test_empty_folder_and_too_many_broken_files(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert "empty" in error(capsys, "train", "simclr", "--data", "empty", "--steps", "1", *QUICK)
    photos = write_photos(tmp_path / "photos", 40, classes=1)
    for k in range(6):
        (photos / f"{k:03d}.png").write_bytes(b"\x89PNG broken")
    said = error(capsys, "train", "simclr", "--data", "photos", "--steps", "20", "--batch-size", "8", *QUICK)
    assert "more than 5%" in said
    assert "--max-skip" in said


def test_broken_files_are_skipped_listed_and_named_by_check(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photos = write_photos(tmp_path / "photos", 60, classes=1)
    (photos / "007.png").write_bytes(b"")
    (photos / "008.png").write_bytes((photos / "009.png").read_bytes()[:200])
    code, out, err = run(
        capsys, "train", "simclr", "--data", "photos", "--steps", "30", "--batch-size", "16", "--out", "run", *QUICK
    )
    assert code == 0, err
    listed = (tmp_path / "run/skipped.csv").read_text()
    assert "007.png" in listed
    assert "008.png" in listed
    assert "2 unusable samples" in out
    assert "report: " in out
    code, out, _ = run(capsys, "data", "check", "photos")
    assert code == 1
    assert "007.png" in out
    assert "008.png" in out


@pytest.mark.slow
def test_a_newcomers_way_through(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Train on a folder with class folders, evaluate, apply, export, report, compare, repeat from the config."""
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "photos", 80)
    code, out, err = run(
        capsys, "train", "dcl", "--data", "photos", "--steps", "20", "--batch-size", "16", "--out", "run", *QUICK
    )
    assert code == 0, err
    assert len(out.strip().splitlines()) == 3
    code, out, err = run(capsys, "evaluate", "run", "--protocol", "knn,linear", "--seeds", "2")
    assert code == 0, err
    for word in ("this model", "untrained", "raw input", "accuracy"):
        assert word in out
    code, _, err = run(capsys, "apply", "run", "photos", "--out", "e.parquet")
    assert code == 0, err
    import pyarrow.parquet as pq

    table = pq.read_table("e.parquet")
    assert table.num_rows == 80
    assert table.column("name").to_pylist()[0].endswith(".png")
    for form, made in (("safetensors", "x.safetensors"), ("timm", "timm"), ("onnx", "x.onnx")):
        code, out, err = run(capsys, "export", "run", "--format", form, "--out", made)
        assert code == 0, err
        assert out.splitlines()[-1].endswith(made)
        assert Path(made).is_dir() == (form == "timm")
    weights = {name.removeprefix("model."): value for name, value in load_file("run/encoder.safetensors").items()}
    exported = load_file("x.safetensors")
    assert exported.keys() == weights.keys()
    assert all(torch.equal(exported[name], value) for name, value in weights.items())
    code, _, err = run(capsys, "report", "run")
    assert code == 0, err
    page = (tmp_path / "run/report.html").read_text()
    assert html.escape(catalog.card("dcl").title) in page
    shown = json.loads((tmp_path / "run/evaluation.json").read_text())["knn"]["this"]["numbers"]["accuracy"]["mean"]
    assert f"{shown:.3f}" in page
    assert page.count("data:image") >= 2
    code, _, err = run(capsys, "train", "dcl", "--config", "run/config.yaml", "--out", "again", "--quiet")
    assert code == 0, err
    a, b = load_file("run/encoder.safetensors"), load_file("again/encoder.safetensors")
    assert all((a[k] == b[k]).all() for k in a)
    code, _, err = run(capsys, "report", "run", "again", "--out", "both.html")
    assert code == 0, err
    assert Path("both.html").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("channels", [4, 13])
def test_images_of_many_channels(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: int
) -> None:
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "images", 60, channels=channels)
    code, _, err = run(
        capsys, "train", "barlow-twins", "--data", "images", "--steps", "8", "--batch-size", "16", "--out", "run",
        "--encoder", "resnet10-narrow", "--image-size", "16", "--projector", "16-16-16", "--quiet",
    )  # fmt: skip
    assert code == 0, err
    assert json.loads((tmp_path / "run/encoder.json").read_text())["channels"] == channels
    code, _, err = run(capsys, "apply", "run", "images", "--out", "e.npy")
    assert code == 0, err
    assert np.isfinite(np.load("e.npy")).all()
    (tmp_path / "images/class0/broken.png").write_bytes(b"not an image")
    (tmp_path / "images/stray.png").write_bytes((tmp_path / "images/class0/broken.png").read_bytes())
    code, out, err = run(capsys, "apply", "run", "images", "--out", "f.npy")
    assert code == 0, err
    assert out.splitlines() == ["60 written to f.npy", "2 could not be used, listed in f.npy.skipped.csv"]
    listed = (tmp_path / "f.npy.skipped.csv").read_text()
    assert "\nclass0/broken.png," in listed
    assert "\nstray.png," in listed  # beside the class folders: without a label, and still somebody's image
    write_photos(tmp_path / "rgb", 20)
    said = error(capsys, "apply", "run", "rgb", "--out", "f.npy")
    assert f"{channels}" in said


@pytest.mark.slow
def test_denoise_a_folder_keeps_names_sizes_and_depth(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    noisy = tmp_path / "noisy/deep"
    noisy.mkdir(parents=True)
    for k, size in enumerate([(90, 120), (77, 101), (130, 64), (96, 96)]):
        cv2.imwrite(str(noisy / f"a{k}.png"), rng.integers(0, 65536, (*size, 3), dtype=np.uint16))
    code, _, err = run(
        capsys, "train", "c-bsn", "--data", "noisy", "--steps", "3", "--batch-size", "2", "--width", "8", "--modules",
        "1", "--patch", "36", "--out", "run", "--quiet", "--workers", "0",
    )  # fmt: skip
    assert code == 0, err
    code, _, err = run(capsys, "apply", "run", "noisy", "--out", "clean", "--tile", "64")
    assert code == 0, err
    for path in noisy.iterdir():
        found = list((tmp_path / "clean").rglob(path.name))
        assert len(found) == 1
        a, b = cv2.imread(str(path), -1), cv2.imread(str(found[0]), -1)
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
    stamp = found[0].stat().st_mtime_ns
    time.sleep(0.05)
    (noisy / "broken.png").write_bytes(b"not an image")
    code, out, _ = run(capsys, "apply", "run", "noisy", "--out", "clean")
    assert out.splitlines()[-1] == f"1 could not be used, listed in {Path('clean/skipped.csv')}"
    (noisy / "broken.png").unlink()
    code, out, _ = run(capsys, "apply", "run", "noisy", "--out", "clean")
    assert not Path("clean/skipped.csv").exists()
    assert code == 0
    assert out.startswith("0 written")
    assert found[0].stat().st_mtime_ns == stamp


def test_the_projection_study_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "projection-study", "--out", str(tmp_path), "--steps", "500"]) == 0
    assert "4 layers" in "".join(capsys.readouterr())
    assert {path.name for path in tmp_path.iterdir()} == {"projection-study.json", "projection-study.svg"}
    assert "no option --full" in error(capsys, "benchmark", "projection-study", "--full")


@pytest.mark.parametrize("name", [*COMMANDS, *(f"benchmark {name}" for name in BENCHMARKS)])
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = name.split() if name != "train" else ["train", "dcl"]
    with pytest.raises(SystemExit) as end:
        main([*words, "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: selftaught {' '.join(words)}")
    assert "-h, --help" in out


def test_a_room_of_commands_refuses_a_file_without_one_and_a_name_given_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = tmp_path / "some_commands"
    room.mkdir()
    (room / "__init__.py").touch()
    (room / "first.py").write_text(
        "from selftaught.cli._command import Command\nCOMMAND = Command('same', 'x', print, print)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert list(commands_of("some_commands", [str(room)])) == ["same"]
    (room / "second.py").write_text("from some_commands.first import COMMAND\n")
    with pytest.raises(ImportError, match="already"):
        commands_of("some_commands", [str(room)])
    (room / "second.py").write_text("x = 1\n")
    sys.modules.pop("some_commands.second")
    importlib.invalidate_caches()
    with pytest.raises(ImportError, match="no COMMAND"):
        commands_of("some_commands", [str(room)])


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["doctor"], "stopped; give the same command again"),
        (["apply", "some-run", "photos", "--out", "x.npy"], "stopped; the same command goes on where it stopped"),
    ],
)
def test_a_signal_ends_any_command_in_one_line(
    arguments: list[str],
    said: str,
    signum: signal.Signals,
    code: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the middle of the work; what was on its way to a file is cleared up as the command unwinds."""
    unwound = []

    def work(*_: object, **__: object) -> None:
        try:
            os.kill(os.getpid(), signum)
            time.sleep(5)
        except Exception:
            unwound.append("taken for a fault")
        finally:
            unwound.append("cleared up")

    monkeypatch.setattr("selftaught.doctor.examine", work)
    monkeypatch.setattr("selftaught.load", work)
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    found, _, err = run(capsys, *arguments)
    assert (found, unwound) == (code, ["cleared up"])
    assert err == f"selftaught: {said}\n"
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_told_twice_or_taken_for_a_fault_ends_as_one(
    signum: signal.Signals, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As libraries do that call Python from elsewhere; and a user who is in a hurry."""

    def work(*_: object, **__: object) -> None:
        try:
            os.kill(os.getpid(), signum)
            time.sleep(5)
        except BaseException:
            os.kill(os.getpid(), signum)
            raise UserError("encoder.safetensors: damaged") from None

    monkeypatch.setattr("selftaught.doctor.examine", work)
    found, _, err = run(capsys, "doctor")
    assert (found, err) == (code, "selftaught: stopped; give the same command again\n")


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_in_the_middle_of_a_del_is_not_lost(
    signum: signal.Signals, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python swallows what is raised there; the command must stop all the same."""

    class Dying:
        def __del__(self) -> None:
            os.kill(os.getpid(), signum)
            time.sleep(0.01)

    def work(*_: object, **__: object) -> None:
        Dying()
        time.sleep(5)

    monkeypatch.setattr("selftaught.doctor.examine", work)
    hook = sys.unraisablehook
    found, _, err = run(capsys, "doctor")
    assert (found, err) == (code, "selftaught: stopped; give the same command again\n")
    assert sys.unraisablehook is hook


@pytest.mark.parametrize(("first", "code"), [("signal", 130), ("error", 2)])
def test_signals_after_the_end_of_a_command_are_silent(first: str, code: int) -> None:
    """While its line is printed, and while Python clears up: a second Ctrl-C had ended in a traceback, or in code 1."""
    script = (
        "import os, signal, sys\n"
        "from selftaught.cli import _main\n"
        "from selftaught.errors import UserError\n"
        "sys.argv = ['selftaught', 'doctor']\n"
        "send = lambda: os.kill(os.getpid(), signal.SIGINT)\n"
        "def command(arguments):\n"
        f"    if {first!r} == 'error':\n"
        "        raise UserError('no such thing')\n"
        "    send()\n"
        "ended = _main._ended\n"
        "def told(*args):\n"
        "    send()\n"
        "    return ended(*args)\n"
        "_main._dispatch, _main._ended = command, told\n"
        "code = _main.main()\n"
        "if code == 2:\n"
        "    send()\n"
        "raise SystemExit(code)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert done.returncode == code, done.stderr
    assert done.stderr.count("selftaught: ") == 1
