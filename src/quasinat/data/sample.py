"""One image's file with what belongs to it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Sample:
    """An image's file, and the rest of its sample, which is passed on as it is.

    Attributes:
        key: its name; unique in a shard.
        image: the file's bytes; none where the sample has no image.
        rest: whatever else there is by name, such as `cls` or `json`: bytes from a tar, any value from a table.
    """

    key: str
    image: bytes | None
    rest: Mapping[str, Any] = field(default_factory=dict)
