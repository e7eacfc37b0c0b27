"""What a run's folder says, without a model: the sections that need no samples."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import yaml

from selftaught import report
from selftaught.run import reporting
from selftaught.run.evaluations import Evaluation
from selftaught.run.layout import Layout


def folder(path: Path) -> Layout:
    """A run of two stages, two of whose 434 samples could not be used; one was found unusable in both stages."""
    data = {"name": "plain/", "samples": 434, "modality": "image", "channels": 3, "classes": None}
    config = {"method": "dcl", "data": data, "settings": {}, "options": {}}
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    stages = {name: {"steps": 2, "seconds": 1.5, "skipped": 0} for name in ("pretrain", "gan")}
    (path / "state.json").write_text(json.dumps({"stages": stages}))
    for name, losses, lost in (("pretrain", (3.0, 2.0), ("a.png",)), ("gan", (40.0, 30.0), ("a.png", "b.png"))):
        below = path / "stages" / name
        below.mkdir(parents=True)
        rows = "".join(f"{name},{step},{loss}\n" for step, loss in enumerate(losses, start=1))
        (below / "metrics.csv").write_text("stage,step,loss\n" + rows)
        (below / "skipped.csv").write_text("name,reason\n" + "".join(f"{one},truncated\n" for one in lost))
    return Layout(path)


def test_a_runs_folder_is_told_as_it_is(tmp_path: Path) -> None:
    layout = folder(tmp_path / "run")
    found = reporting.sections(layout, Evaluation(layout.path), [])
    assert found["source"]["train"] == 432
    assert not found.get("labels_seen")
    assert sorted(row["name"] for row in found["skipped"]) == ["a.png", "b.png"]
    assert found["metrics"]["step"] == [1, 2, 3, 4]
    assert found["metrics"]["stage"] == ["pretrain", "pretrain", "gan", "gan"]
    age = datetime.now() - datetime.strptime(found["created"], "%Y-%m-%d %H:%M")
    assert timedelta(0) <= age < timedelta(minutes=2)
    page = report.render([found])
    assert "432 to train" in page
    assert page.count('class="item-name stage-name"') == 2
    assert "in its last stage, gan" in page


def test_a_run_says_that_it_learnt_from_labels(tmp_path: Path) -> None:
    layout = folder(tmp_path / "run")
    config = layout.config.read_text()
    for method in ("gopro", "supcon", "supervised", "meta-loss-rescaling"):
        layout.config.write_text(config.replace("method: dcl", f"method: {method}"))
        assert reporting.sections(layout, Evaluation(layout.path), [])["labels_seen"] is True


def test_what_raw_input_wins_by_being_untouched_is_passed_on(tmp_path: Path) -> None:
    layout = folder(tmp_path / "run")
    numbers = {"kept": {"mean": 0.6, "low": 0.5, "high": 0.7, "values": [0.6]}}
    figures = {"better": {"change": "none"}, "untouched": ["kept"]}
    this = {"name": "editing", "numbers": numbers, "figures": figures, "note": ""}
    (layout.path / "evaluation.json").write_text(json.dumps({"editing": {"this": this}}))
    found = reporting.sections(layout, Evaluation(layout.path), [Evaluation(layout.path)])["protocols"]
    assert found == [{"name": "editing", "better": {"change": "none"}, "untouched": ["kept"], "this": this}]
