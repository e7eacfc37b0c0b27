"""The page: sections, headline figures and templates put together into one file."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from selftaught._paths import ON_DISK, part_of
from selftaught._words import plural
from selftaught.errors import UserError
from selftaught.report import compare, curves, restored, sections
from selftaught.report.text import duration, known, number
from selftaught.report.validation import validate
from selftaught.report.verdict import label_scores, verdict, verdict_of_many

_TONE_WORDS = {
    "gain": "Clear gain",
    "mixed": "Mixed result",
    "none": "No gain",
    "unknown": "",
    "sound": "No sign of collapse",
    "collapsed": "Signs of collapse",
}
_LEAD_WORDS = {"gain": "Clear lead", "mixed": "No clear lead", "none": "", "unknown": ""}


def write(path: str | os.PathLike[str], runs: Sequence[Mapping[str, Any]]) -> Path:
    """Write the report of one run, or the comparison of several, as one self-contained HTML file.

    Args:
        path: the file to write; for a folder, ``report.html`` in it. Missing folders are made. The file appears whole
            or not at all.
        runs: one dict per run, as :class:`selftaught.report.schema.Run` describes; every section is optional.

    Returns:
        The path of the file.

    Raises:
        UserError: (a ``ValueError``) names the section of ``runs`` that is out of shape.
    """
    return save(path, render(runs))


def save(path: str | os.PathLike[str], page: str) -> Path:
    """Write a page whole or not at all; into a folder as ``report.html``. Missing folders are made.

    A page is UTF-8; bytes of names that are not become U+FFFD.
    """
    target = Path(path)
    if target.is_dir():
        target = target / "report.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(target)  # opened the plain way: its mode follows the umask
    try:
        part.write_text(page.encode("utf-8", ON_DISK).decode("utf-8", "replace"), encoding="utf-8")
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return target


def render(runs: Sequence[Mapping[str, Any]]) -> str:
    """The report as text; see :func:`write`."""
    if isinstance(runs, Mapping) or not len(runs):
        raise UserError("report: runs is a list with one dict per run; give at least one")
    checked = [_enriched(_numbered(run, i, len(runs))) for i, run in enumerate(runs)]
    titles = compare.unique_titles(checked)
    pages = [_run_context(run, titles[i], f"r{i}-") for i, run in enumerate(checked)]
    if len(pages) == 1:
        return document("single.html.j2", run=pages[0], title=titles[0])
    rows, alike = compare.differences(checked)
    context = {
        "title": f"Comparison of {len(pages)} runs",
        "runs": pages,
        "titles": titles,
        "verdict": verdict_of_many(checked, titles),
        "tone_words": _LEAD_WORDS,
        "table": compare.table(checked),
        "differences": rows,
        "alike": alike,
        "charts": compare.charts(checked, titles),
        "sources_differ": compare.sources_differ(checked),
        "steps_differ": [f"{name} {number(count)}" for name, count in compare.steps_differ(checked)],
    }
    return document("comparison.html.j2", **context)


def document(template: str, **context: Any) -> str:
    """A template that extends the layout as a whole page, with the script and its digest."""
    environment = _environment()
    script = environment.get_template("script.js").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template).render(**context, script=script, digest=digest)


def _numbered(run: Mapping[str, Any], i: int, count: int) -> dict[str, Any]:
    """Validate; of several runs, the message also says which one."""
    try:
        return validate(run)
    except UserError as error:
        if count == 1:
            raise
        raise UserError(f"{error} (run {i + 1} of {count})") from error


def _enriched(run: dict[str, Any]) -> dict[str, Any]:
    if run.get("restoration"):
        run["restoration"] = [restored.measured(item) for item in run["restoration"]]
    return run


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("selftaught.report"),
        autoescape=lambda name: name is not None and not name.endswith(".js"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _run_context(run: Mapping[str, Any], title: str, prefix: str) -> dict[str, Any]:
    return {
        "title": title,
        "prefix": prefix,
        "facts": _facts(run),
        "paper": _paper(run.get("paper") or {}),
        "generated": bool((run.get("source") or {}).get("generated")),
        "verdict": verdict(run),
        "tone_words": _TONE_WORDS,
        "lines": (run.get("summary") or {}).get("lines") or [],
        "tiles": _tiles(run),
        "sections": sections.ordered(run),
    }


def _facts(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was trained on what, as names and values."""
    source = run.get("source") or {}
    counts = [
        f"{number(source[k])} {word}"
        for k, word in (("train", "to train"), ("test", "to test"))
        if source.get(k) is not None
    ]
    classes = source.get("classes")
    details = [source.get("describe") or "", ", ".join(counts), plural(len(classes), "class") if classes else ""]
    if source.get("channels") and source.get("modality") != "text":
        details.append(plural(source["channels"], "channel"))
    beside = source.get("beside") or {}
    details += [f"{role}: {one['name']}, {number(one['samples'])}" for role, one in beside.items()]
    name = source.get("name") or ""
    steps = known((run.get("metrics") or {}).get("step"))
    spent = [
        plural(int(steps[-1]), "step") if steps else "",
        duration(run["seconds"]) if run.get("seconds") is not None else "",
    ]
    facts = [
        ("Method", run.get("method_title") or run.get("method") or ""),
        ("Data", " · ".join(part for part in (name, *details) if part)),
        ("Training", " · ".join(part for part in spent if part)),
        ("Written", run.get("created") or ""),
    ]
    return [(label, value) for label, value in facts if value]


def _paper(paper: Mapping[str, Any]) -> str:
    where = ", ".join(str(paper[k]) for k in ("venue", "year") if paper.get(k))
    title = f"“{paper['title']}”" if paper.get("title") else ""
    parts = [part for part in (paper.get("authors"), title, where) if part]
    return (
        ". ".join([", ".join(parts), *([paper["url"]] if paper.get("url") else [])])
        if parts or paper.get("url")
        else ""
    )


def _tiles(run: Mapping[str, Any]) -> list[dict[str, str]]:
    """Headline figures: those given, else what the sections offer."""
    given = (run.get("summary") or {}).get("tiles")
    if given:
        return [
            {"label": t.get("label", ""), "value": _value(t.get("value")), "note": t.get("note", "")} for t in given
        ]
    tiles = []
    found = label_scores(run.get("label_efficiency") or {})
    if found and found[1]:
        ends = [v for v in (found[1].low, found[1].high) if v is not None]
        note = "–".join(number(v, 2) for v in ends) if len(ends) == 2 else ""
        tiles.append({"label": f"{number(found[0])} labels per class", "value": number(found[1].mean, 2), "note": note})
    metrics = run.get("metrics") or {}
    for score, title in curves.SCORES.items():
        steps, accuracy = curves.score_points(metrics, score)
        if accuracy:
            note = f"from {number(accuracy[0], 2)} at step {number(steps[0])}"
            tiles.append({"label": f"online {title}", "value": number(accuracy[-1], 2), "note": note})
    stage, last = curves.last_learning(metrics)
    loss = known((last.get("series") or {}).get("loss"))
    if loss:
        name = f"loss, {stage}" if stage else "loss"
        note = f"from {number(loss[0])}" if len(loss) > 1 else ""
        tiles.append({"label": name, "value": number(loss[-1]), "note": note})
    rank = curves.effective_rank((run.get("spectrum") or {}).get("this"))
    told = verdict(run).tone in ("sound", "collapsed")  # the sentence above has a rank; a second one would confuse
    if rank is not None and not told:
        of = number(len(known(run["spectrum"]["this"])))
        tiles.append({"label": "effective rank, centred", "value": number(rank, 1), "note": f"of at most {of}"})
    if run.get("seconds") is not None:
        tiles.append({"label": "time", "value": duration(run["seconds"]), "note": ""})
    return tiles


def _value(value: Any) -> str:
    return value if isinstance(value, str) else number(value)
