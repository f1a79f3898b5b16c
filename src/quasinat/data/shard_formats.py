"""The files that hold many samples: WebDataset tars and Parquet tables."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from quasinat.data.parquet import read_parquet, write_parquet
from quasinat.data.sample import Sample
from quasinat.data.tars import read_tar, write_tar


@dataclass(frozen=True)
class ShardFormat:
    """The suffix of a file's name, and how samples come from its bytes and become bytes.

    `read(content, name)` raises an `InputError` that names the file; `write` makes equal bytes of equal samples.
    """

    suffix: str
    read: Callable[[bytes, str], list[Sample]]
    write: Callable[[Sequence[Sample]], bytes]


SHARD_FORMATS: Mapping[str, ShardFormat] = {
    "webdataset": ShardFormat(".tar", read_tar, write_tar),
    "parquet": ShardFormat(".parquet", read_parquet, write_parquet),
}


def format_of(name: str) -> ShardFormat | None:
    """The format of a file by its suffix; None if it is none of them."""
    return next((each for each in SHARD_FORMATS.values() if name.lower().endswith(each.suffix)), None)
