"""Where a picture was taken, by its nearest neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from selftaught.data import LOCATIONS, open_source, read_metadata
from selftaught.evaluation import Result
from selftaught.evaluation.geolocalisation import geolocalisation
from selftaught.run.suites._folders import folder_of, whole
from selftaught.run.suites._suite import suite

if TYPE_CHECKING:
    from selftaught.run.bench import Bench

__all__: list[str] = []


@suite("geolocalisation")
def _places(bench: Bench) -> dict[str, Result]:
    name, columns = "geolocalisation", ("latitude", "longitude")
    folder = bench.folder(name, f"images and {LOCATIONS}")
    if bench.options.reference is not None:
        asked, database = whole(folder), whole(folder_of(bench.options.reference))
        where = read_metadata(folder_of(bench.options.reference) / LOCATIONS, database, columns)
        of_asked = read_metadata(folder / LOCATIONS, asked, columns)
    else:
        options: dict[str, Any] = {"modality": "image", "seed": bench.settings.seed}
        database, asked = (open_source(str(folder), split=split, **options) for split in ("train", "test"))
        where, of_asked = (read_metadata(folder / LOCATIONS, part, columns) for part in (database, asked))
    known, wanted = where.numbers(*columns), of_asked.numbers(*columns)
    database, asked = database.subset(where.rows), asked.subset(of_asked.rows)
    found = {}
    for contender in bench.each(name, database):
        (x, at), (tx, index) = contender.features(database), contender.features(asked)
        found[contender.kind] = geolocalisation(x, known[at], tx, wanted[index])
    return found
