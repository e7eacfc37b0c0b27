"""`sentiment`: short texts with the mean of what people felt about them (Hutto & Gilbert, ICWSM 2014).

They come with the source archive of the package vaderSentiment (MIT licence), which pip fetches once into the cache
folder; the package itself is not installed.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np

from selftaught.data.builtin._entry import Entry
from selftaught.data.formats.labelled_text import LabelledTexts
from selftaught.data.mapped import build_once, cache_folder
from selftaught.errors import UserError

VERSION = "3.3.2"
CORPORA = {
    "films": "movieReviewSnippets",
    "products": "amazonReviewSnippets",
    "news": "nytEditorialSnippets",
    "tweets": "tweets",
}
_INNER = "additional_resources/hutto_ICWSM_2014.tar.gz"
_CLEAR = 0.5


def open_sentiment(*, corpus: str = "films") -> LabelledTexts:
    """Sentences that people felt to be negative or positive: 10,043 from film reviews, as texts with two classes.

    Human scores run from -4 to 4; a text is negative below -0.5, positive above 0.5, and left out in between.

    Args:
        corpus: films, products, news, tweets, or all.

    Raises:
        UserError: an unknown corpus; it is not here and can't be fetched.
    """
    chosen = list(CORPORA) if corpus == "all" else [corpus]
    if not set(chosen) <= set(CORPORA):
        raise UserError(f"sentiment?corpus={corpus}: it may be {', '.join(CORPORA)} or all")
    folder = fetch_sentiment()
    texts: list[str] = []
    names: list[str] = []
    scores: list[float] = []
    for name in chosen:
        for key, score, text in _lines(folder / f"{CORPORA[name]}.txt"):
            if abs(score) > _CLEAR:
                names.append(f"{name}/{key}")
                scores.append(score)
                texts.append(text)
    labels = (np.array(scores) > 0).astype(np.int64)
    return LabelledTexts(texts, labels, "sentiment", names=names, classes=["negative", "positive"])


def _lines(path: Path) -> list[tuple[str, float, str]]:
    """(id, score, text) of each line of a corpus."""
    rows = [line.split("\t", 2) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(row[0], float(row[1]), row[2]) for row in rows if len(row) == 3 and row[2].strip()]


def sentiment_folder() -> Path:
    """Where the corpora lie, or will lie, in the cache folder."""
    return cache_folder() / f"sentiment-{VERSION}"


def fetch_sentiment() -> Path:
    """The folder of the corpora, made if need be; two processes at a time make it once.

    Raises:
        UserError: pip can't fetch the archive.
    """
    return build_once(sentiment_folder(), _build)


def _build(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        command = [
            sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "vaderSentiment",
            "--dest", scratch, f"vaderSentiment=={VERSION}",
        ]  # fmt: skip
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=300, text=True)
            archive = next(Path(scratch).glob("*.tar.gz"))
            found = read_archive(archive.read_bytes())
        except (subprocess.SubprocessError, OSError, StopIteration, tarfile.TarError, KeyError) as error:
            reason = " ".join(str(getattr(error, "stderr", "") or error).split())[-100:]
            raise UserError(
                "sentiment can't be fetched here: go online once and run 'selftaught data fetch sentiment', or give "
                f"texts of your own (reviews.csv), or take --data 'digits?wrong_labels=0.2' ({reason})"
            ) from None
    folder.mkdir(parents=True)
    for name, text in found.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")


def read_archive(data: bytes) -> dict[str, str]:
    """The corpora in the package's source archive, name -> its lines.

    Raises:
        tarfile.TarError: it is no archive.
        KeyError: a corpus is not in it.
    """
    with tarfile.open(fileobj=io.BytesIO(data)) as outer:
        member = next((m for m in outer.getmembers() if m.name.endswith(_INNER)), None)
        file = outer.extractfile(member) if member is not None else None
        if file is None:
            raise KeyError(_INNER)
        inner = file.read()
    found = {}
    with tarfile.open(fileobj=io.BytesIO(inner)) as archive:
        for name in CORPORA.values():
            file = archive.extractfile(f"hutto_ICWSM_2014/{name}_GroundTruth.txt")
            if file is None:
                raise KeyError(name)
            found[name] = file.read().decode("utf-8", "replace")
    return found


ENTRIES = (
    Entry(
        "sentiment",
        "text",
        "10,043 sentences of film reviews felt negative or positive; also ?corpus=products, news, tweets, all",
        f"pip's download of vaderSentiment's source archive, {VERSION}",
        open_sentiment,
        fetch=fetch_sentiment,
        here=lambda: sentiment_folder().is_dir(),
    ),
)
