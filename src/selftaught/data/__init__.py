"""Sources of samples: folders, arrays, tables, shards, other people's data sets, and the built-in ones.

`open_source` turns a source string (or a path, an array, a Dataset) into a `Source`, whose `read(i)` gives one sample.
The other names here are what the engine and the command line need around it.
"""

from selftaught.data.cache import PackedSource, pack
from selftaught.data.checking import CheckReport, check
from selftaught.data.combining import Captioned, Concat, Grouped, Mapped, Pairs, by_field, captioned
from selftaught.data.copies import Copies, open_copies
from selftaught.data.decoding import IMAGE_SUFFIXES, decode
from selftaught.data.embedded import EMBEDDED_NAMES, Embedded, fetch, list_embedded
from selftaught.data.fields import Field
from selftaught.data.kinds import KINDS, Camera, Kind, kind_of
from selftaught.data.mapped import cache_folder
from selftaught.data.metadata import LOCATIONS, METADATA, Metadata, read_metadata
from selftaught.data.opening import holds_videos, open_source
from selftaught.data.packed_clips import PackedClips
from selftaught.data.picture_facts import PictureFacts, read_with_metadata
from selftaught.data.scaling import Scale, ValueRange, as_uint8, from_unit, of_depth, to_unit
from selftaught.data.source import Modality, Source, Subset, require_labels
from selftaught.data.splits import EmptyPartError, split_source, take

__all__ = [
    "EMBEDDED_NAMES",
    "IMAGE_SUFFIXES",
    "KINDS",
    "LOCATIONS",
    "METADATA",
    "Camera",
    "Captioned",
    "CheckReport",
    "Concat",
    "Copies",
    "Embedded",
    "EmptyPartError",
    "Field",
    "Grouped",
    "Kind",
    "Mapped",
    "Metadata",
    "Modality",
    "PackedClips",
    "PackedSource",
    "Pairs",
    "PictureFacts",
    "Scale",
    "Source",
    "Subset",
    "ValueRange",
    "as_uint8",
    "by_field",
    "cache_folder",
    "captioned",
    "check",
    "decode",
    "fetch",
    "from_unit",
    "holds_videos",
    "kind_of",
    "list_embedded",
    "of_depth",
    "open_copies",
    "open_source",
    "pack",
    "read_metadata",
    "read_with_metadata",
    "require_labels",
    "split_source",
    "take",
    "to_unit",
]
