"""Views from a YAML file, and errors that name the file and the key."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from selftaught import views
from selftaught.errors import UserError
from selftaught.views import Dihedral, Downsample, Pipeline, RandomCrop, Recipe, View, ViewSet

LIST = """
views:
  - name: first
    ops:
      - RandomResizedCrop: {size: 96, scale: [0.2, 1.0]}
      - HorizontalFlip
      - {op: ColorJitter, brightness: 0.4, order: bcsh}
      - Grayscale:
  - ops: [{CenterCrop: {size: [64, 32]}}]
"""

RECIPE = """
views:
  - {name: high, of: image, ops: [{RandomCrop: {size: 96}}, Dihedral], space: s, scale: 4}
  - {name: mask, of: mask, ops: [{RandomCrop: {size: 24}}, Dihedral], space: s}
  - {name: low, of: high, ops: [{Downsample: {scale: 4}}]}
  - {name: text, of: text}
kinds: {mask: mask}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "views.yaml"
    path.write_text(text)
    return path


def test_a_list_of_views(tmp_path: Path) -> None:
    found = views.load(written(tmp_path, LIST), seed=3)
    assert isinstance(found, ViewSet)
    jitter = views.ColorJitter(0.4, order="bcsh")
    crop = views.RandomResizedCrop(96, (0.2, 1.0))
    assert found[0] == Pipeline((crop, views.HorizontalFlip(), jitter, views.Grayscale()), name="first")
    assert found[1].ops == (views.CenterCrop((64, 32)),)


def test_a_recipe(tmp_path: Path) -> None:
    found = views.load(written(tmp_path, RECIPE))
    assert found == Recipe(
        (
            View("high", "image", (RandomCrop(96), Dihedral()), "s", 4),
            View("mask", "mask", (RandomCrop(24), Dihedral()), "s"),
            View("low", "high", (Downsample(4),)),
            View("text", "text"),
        ),
        kinds={"mask": "mask"},
    )
    assert Recipe.from_dict(yaml.safe_load(yaml.safe_dump(found.to_dict()))) == found
    assert views.load(written(tmp_path, yaml.safe_dump(found.to_dict()))) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("views: [", "no YAML in line 1"),
        ("view: []", "needs a key 'views'"),
        ("views: []", "needs a key 'views'"),
        ("- 3", "needs a key 'views'"),
        ("views: [3]", r"views\[0\]: Pipeline: a view is a mapping"),
        ("views: [{ops: Grayscale}]", r"views\[0\]: Pipeline: 'ops' is a list"),
        (
            "views: [{ops: []}, {ops: [Grey]}]",
            r"views\[1\]: ops\[0\]: Pipeline: no view operation 'Grey'; there are .*JPEG",
        ),
        ("views: [{ops: [{Grayscale: {q: 1}}]}]", r"ops\[0\]: Grayscale: no option 'q'; there are p"),
        ("views: [{ops: [{Grayscale: {p: often}}]}]", r"ops\[0\]: Grayscale: p is a probability"),
        ("views: [{ops: [{Grayscale: 0.3}]}]", r"ops\[0\]: Grayscale: options are a mapping"),
        ("views: [{ops: [{GaussianBlur: {sigma: [a, 2]}}]}]", "sigma must be two numbers"),
        ("views: [{ops: [{RandomCrop: {}}]}]", r"ops\[0\]: RandomCrop: .*size"),
        ("views: [{ops: [[1]]}]", "an operation is a name"),
        ("views: [{ops: [], per_frame: 1}]", "'per_frame' is true or false"),
        ("views: [{name: a, of: image}, {ops: []}]", r"views\[1\]: says not what it is 'of'"),
        ("views: [{name: a, of: image, place: s}]", r"views\[0\]: View: a mapping with 'name'"),
        ("views: [{name: a, of: image, scale: 2}]", r"views\[0\]: View a: scale=2 needs"),
        ("views: [{name: a, of: 3}]", "of and space are names"),
        ("views: [{ops: []}]\nkinds: {}", "'views' alone"),
        ("views: [{name: a, of: image}]\nkinds: 3", "'kinds' of fields"),
    ],
)
def test_errors_name_the_file_and_the_key(tmp_path: Path, text: str, words: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UserError, match=words) as caught:
        views.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_files_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can't be read"):
        views.load(tmp_path / "none.yaml")
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="UTF-8"):
        views.load(tmp_path / "a.yaml")
