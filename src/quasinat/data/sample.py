"""One image's file with what belongs to it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
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


def stays_inside(name: str) -> bool:
    """Whether a name with `/` can be written below any folder, on any system, and nowhere else."""
    parts = PurePosixPath(name).parts
    plain = "/".join(parts) == name and not name.startswith("/") and not set(name) & set("\\\0")
    return bool(parts) and plain and ".." not in parts and not re.match("[A-Za-z]:", name)
