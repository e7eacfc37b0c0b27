"""Pairs whose fields are called otherwise are refused: the first would be taken for what it is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import selftaught
from selftaught import DataModule, methods
from selftaught.data import open_source
from selftaught.engine.pairing import check_pairs
from selftaught.errors import UserError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    for name in ("one", "two", "kernels"):
        (folder / name).mkdir()
        for i in range(4):
            cv2.imwrite(str(folder / name / f"{i}.png"), np.full((40, 40, 3), 40 * i, np.uint8))
    return folder


@pytest.mark.parametrize(
    ("slug", "given", "wanted"),
    [
        ("multi-output-deblur", ("image", "clean"), "blurred and sharp"),
        ("srgan", ("lr", "hr"), "low and high"),
        ("rrformer", ("blended", "reflection"), "blended and transmission"),
        ("infwide", ("blurry", "sharp"), "blurred and sharp"),
        ("text-erasing", ("image", "target"), "image and clean"),
    ],
)
def test_a_run_refuses_pairs_that_it_would_not_read(
    root: Path, tmp_path: Path, slug: str, given: tuple[str, str], wanted: str
) -> None:
    spec = f"pairs:{root}?{given[0]}=one&{given[1]}=two"
    with pytest.raises(UserError, match=f"has the pictures {given[0]}, {given[1]}; its pairs are {wanted}"):
        selftaught.train(slug, spec, out=tmp_path / "run", steps=1, quiet=True, preset="laptop")
    assert not (tmp_path / "run").exists()


def test_what_is_known_by_its_names_passes(root: Path) -> None:
    def source(**fields: str) -> Any:
        return open_source({name: str(root / place) for name, place in fields.items()}, split="all")

    deblur: Any = methods.get("multi-output-deblur")
    night: Any = methods.get("infwide")
    check_pairs(deblur, source(sharp="two", blurred="one"))
    check_pairs(deblur, open_source(str(root / "one"), split="all"))
    check_pairs(methods.get("dcl"), source(a="one", b="two"))
    check_pairs(night, source(blurred="one", kernel="kernels"), first=True)
    check_pairs(night, source(blurred="one", sharp="two", kernel="kernels"))
    for fields in ({"sharp": "two", "blurred": "one"}, {"kernel": "kernels", "blurred": "one"}):
        with pytest.raises(UserError, match="the one to restore is blurred, named first"):
            check_pairs(night, source(**fields), first=True)
    with pytest.raises(UserError, match="its pairs are blurred and sharp"):
        check_pairs(night, source(blurred="one", kernel="kernels"))
    module = DataModule(source(blurry="one", sharp="two"), deblur(width=4, patch=16), batch_size=2, workers=0)
    with pytest.raises(UserError, match="its pairs are blurred and sharp"):
        module.train_dataloader()
