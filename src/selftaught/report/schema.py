"""What a report is made of: the shape of one run's results. :mod:`selftaught.report.validation` holds a run to it.

Every section is optional; a section that is missing, ``None`` or empty is simply not shown. Numbers may be ``None`` or
NaN wherever a :data:`Real` stands: they leave a gap. Pictures are base64 text of a PNG, JPEG or WebP file, with or
without a ``data:`` prefix (:func:`selftaught.report.images.encode` makes them). numpy arrays and scalars are taken as
they come.
"""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

#: Base64 text of a PNG, JPEG or WebP file.
Picture = Annotated[str, "picture"]
#: A number; ``None``, NaN and infinities stand for "no value".
Real = float | None
#: What the template is given of a section; ``None`` where it has nothing to show.
Section = dict[str, Any] | None


class Paper(TypedDict, total=False):
    """The publication behind the method; the address is printed as text, never as a link."""

    title: str
    authors: str
    year: int
    venue: str
    url: str


class Source(TypedDict, total=False):
    """What was trained on. ``generated`` says that the program made the data up, and is shown as a warning;
    ``beside``: further streams, role -> {"name", "samples"}.
    """

    name: str
    describe: str
    modality: str
    train: int
    test: int
    classes: list[str] | None
    channels: int | None
    fingerprint: str
    generated: bool
    beside: dict[str, Any]


class Tile(TypedDict, total=False):
    """One headline figure: ``label`` above, ``value`` large, ``note`` below."""

    label: str
    value: str | float
    note: str


class Summary(TypedDict, total=False):
    """Sentences and headline figures under the title. Without ``tiles`` the report picks its own."""

    lines: list[str]
    tiles: list[Tile]


class Traces(TypedDict, total=False):
    """Curves over training, along ``metrics.step``; ``knn`` and ``probe`` are lists of ``[step, accuracy]``."""

    loss: list[Real]
    terms: dict[str, list[Real]]
    knn: list[list[Real]]
    probe: list[list[Real]]
    lr: list[Real]
    throughput: list[Real]


class Metrics(TypedDict, total=False):
    """Training curves; ``chance`` is the accuracy of guessing, ``unit`` that of the throughput ("images/s").

    ``stage`` names the stage of every step; each stage is then drawn by itself.
    """

    step: list[Real]
    stage: list[str]
    series: Traces
    chance: Real
    unit: str


class Curve(TypedDict, total=False):
    """One label-efficiency curve. ``role`` is "this", "original", "random" (untrained) or "raw"; without it the name
    decides.
    """

    name: str
    role: str
    mean: list[Real]
    low: list[Real] | None
    high: list[Real] | None


class LabelEfficiency(TypedDict, total=False):
    """Score against labels per class. ``metric`` defaults to "accuracy"; ``note`` says how the intervals came about."""

    x: list[Real]
    curves: list[Curve]
    chance: Real
    metric: str
    note: str


class Number(TypedDict, total=False):
    """A measured number and its interval; ``values`` are the single measurements (seeds, folds), ``p`` is not shown."""

    mean: Real
    low: Real
    high: Real
    p: Real
    values: list[Real] | None


class ResultDict(TypedDict, total=False):
    """An evaluation result as plain data: a name, numbers by metric, a note. ``figures`` are not looked at."""

    name: str
    numbers: dict[str, Number]
    figures: Any
    note: str | None


class Protocol(TypedDict, total=False):
    """One protocol for several models. Either ``this``, ``original``, ``retrained``, ``random`` and ``raw``, or
    ``numbers`` alone for this encoder; ``original`` is the model that it began from, ``retrained`` one that learnt
    anew.

    ``better`` says per metric whether "high" or "low" is better, or "none"; the default goes by the metric's name.
    A metric ``NAME_input`` of this encoder (restoration's) is shown as the raw input's NAME. ``untouched``: metrics in
    which raw input is the best there can be, as nothing was done to it; being behind it in those says nothing.
    ``seen``: what it was measured on, where the model learnt from that ("the pairs that it learnt from").
    """

    name: str
    note: str | None
    this: ResultDict | None
    original: ResultDict | None
    retrained: ResultDict | None
    random: ResultDict | None
    raw: ResultDict | None
    numbers: dict[str, Number]
    better: dict[str, str]
    untouched: list[str]
    seen: str
    figures: Any


class Sprites(TypedDict, total=False):
    """Thumbnails in one picture: square tiles of ``tile`` pixels, ``columns`` to a row, in the order of the points."""

    image: Picture
    tile: int
    columns: int


class Map(TypedDict, total=False):
    """Two-dimensional embedding: ``xy`` (n, 2), ``label`` (n,) indices into ``classes``, ``names`` (n,).

    ``seen``: training learnt from classes.
    """

    xy: list[list[Real]]
    label: list[int] | None
    classes: list[str] | None
    names: list[str] | None
    thumbs: Sprites | None
    method: str
    seen: bool


class Hit(TypedDict, total=False):
    """One neighbour: its picture, class and similarity to the query; ``point`` is its row in the map.

    Of a clip the picture is a strip of ``frames`` frames beside each other, which the page plays.
    """

    png: Picture
    label: str | None
    similarity: Real
    name: str
    point: int
    frames: int


class Neighbours(TypedDict, total=False):
    """A query and its nearest neighbours, nearest first: to this encoder, and to an untrained one."""

    query: Picture
    label: str | None
    name: str
    point: int
    frames: int
    hits: list[Hit]
    untrained: list[Hit] | None


class Views(TypedDict, total=False):
    """Rows of pictures as the model saw them; ``columns`` heads them ("original", "view 1", ...)."""

    columns: list[str]
    rows: list[list[Picture]]
    names: list[str]
    note: str


class Cloud(TypedDict, total=False):
    """A cloud of points: ``xyz`` (n, 3) with z upwards; ``colours``: name of a colouring -> (n, 3) from 0 to 255.

    ``label`` (n,) indices into ``classes``, -1 where a point has none, is one more colouring.
    """

    name: str
    xyz: list[list[Real]]
    colours: dict[str, list[list[Real]]]
    label: list[int] | None
    classes: list[str] | None


class Tasks(TypedDict, total=False):
    """A stream of tasks: ``rows[t]`` holds a number for each of the tasks 0 to t after task t was learnt."""

    names: list[str]
    metric: str
    rows: list[list[Real]]
    note: str


class Spectrum(TypedDict, total=False):
    """Singular values of the centred embeddings, largest first."""

    this: list[Real]
    original: list[Real] | None
    random: list[Real] | None
    raw: list[Real] | None


class Restored(TypedDict, total=False):
    """One restored picture. ``crops`` are ``[x, y, width, height]`` boxes; without them the report picks two.

    ``psnr`` (dB) and ``ssim`` are those of the restored picture, ``psnr_noisy`` and ``ssim_noisy`` those of the input;
    where a clean picture is given and a PSNR is not, it is computed from the pictures.
    """

    name: str
    noisy: Picture
    restored: Picture
    clean: Picture | None
    psnr: Real
    ssim: Real
    psnr_noisy: Real
    ssim_noisy: Real
    crops: list[list[int]] | None


class Filmed(TypedDict, total=False):
    """PSNR (dB) of each frame of a restored clip, and of its input; ``flicker`` of both, in grey levels of 255."""

    name: str
    restored: list[Real]
    noisy: list[Real]
    flicker: Real
    flicker_noisy: Real


class Window(TypedDict, total=False):
    """One window of a sensor series: ``channels`` (C, T), its class, the class it was taken for, ``rate`` in Hz."""

    channels: list[list[Real]]
    label: str | None
    predicted: str | None
    rate: Real
    name: str
    channel_names: list[str] | None


class Confusion(TypedDict, total=False):
    """Counts: ``matrix[i][j]`` samples of class i were taken for class j."""

    matrix: list[list[Real]]
    classes: list[str]


class Series(TypedDict, total=False):
    """What is particular to sensor series."""

    windows: list[Window]
    confusion: Confusion | None


class Skipped(TypedDict, total=False):
    """A sample that could not be used."""

    name: str
    reason: str


class Stage(TypedDict, total=False):
    """One stage of training."""

    name: str
    steps: int | None
    epochs: Real
    seconds: Real
    note: str | None


class Listing(TypedDict, total=False):
    """A table to read and sort: ``rows`` of as many cells as ``columns``; ``pictures`` (a picture or None per row).

    With ``classes`` the first two columns are a sample's name and its label, which the reader can correct to another
    one of them, or leave the sample out, and keep as ``corrections.csv``.
    """

    title: str
    note: str
    columns: list[str]
    rows: list[list[str | Real]]
    pictures: list[Picture | None] | None
    classes: list[str] | None


class Timeline(TypedDict, total=False):
    """Moments of one recording in the order of time: where each starts and ends (seconds, or frames where it is not
    ``timed``), and its ``group``, an index into ``typical``, pictures of the groups. ``film``: ``frames`` frames beside
    each other, from the beginning to the end.
    """

    name: str
    start: list[Real]
    end: list[Real]
    group: list[int]
    timed: bool
    typical: list[Picture]
    film: Picture | None
    frames: int


class Run(TypedDict, total=False):
    """One run's results: the argument of :func:`selftaught.report.write`. Every key is optional."""

    title: str
    method: str
    method_title: str
    paper: Paper | None
    source: Source | None
    created: str
    labels_seen: bool | None
    seconds: Real
    command: str
    verdict: str | None
    summary: Summary | None
    config: dict[str, Any] | None
    environment: dict[str, Any] | None
    metrics: Metrics | None
    label_efficiency: LabelEfficiency | None
    protocols: list[Protocol] | None
    map: Map | None
    neighbours: list[Neighbours] | None
    timeline: Timeline | None
    views: Views | None
    clouds: list[Cloud] | None
    pictures: Views | None
    tasks: Tasks | None
    spectrum: Spectrum | None
    restoration: list[Restored] | None
    frames: list[Filmed] | None
    series: Series | None
    listings: list[Listing] | None
    confusion: Confusion | None
    skipped: list[Skipped] | None
    samples: int | None
    notes: list[str] | None
    stages: list[Stage] | None
