"""Sources made of other sources: fields joined by name, one after the other, grouped, changed by a function.

All of them are sources like any other: picklable, with labels, groups and a given split for `split_source`, and with a
fingerprint made of their parts'.
"""

from selftaught.data.combining.captioned import Captioned, captioned
from selftaught.data.combining.concat import Concat
from selftaught.data.combining.grouped import Grouped
from selftaught.data.combining.mapped import Mapped
from selftaught.data.combining.pairs import Pairs, by_field
from selftaught.data.combining.retimed import Retimed

__all__ = ["Captioned", "Concat", "Grouped", "Mapped", "Pairs", "Retimed", "by_field", "captioned"]
