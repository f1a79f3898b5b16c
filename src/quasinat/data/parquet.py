"""Parquet tables of images: a column `image` of files, bytes or Hugging Face's {bytes, path}, and any others."""

import io
from collections.abc import Sequence
from typing import Any

from quasinat.data.sample import Sample
from quasinat.errors import InputError

IMAGE, KEY = "image", "__key__"


def read_parquet(content: bytes, name: str) -> list[Sample]:
    """The rows of a table as samples; their keys are the column `__key__`, or the rows' numbers where there is none.

    Args:
        name: what messages call it.

    Raises:
        InputError: it is damaged, no Parquet file, or has no column `image` of files.
    """
    pyarrow = _pyarrow()
    try:
        rows = pyarrow.parquet.read_table(io.BytesIO(content)).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{name} is damaged or no Parquet file ({reason})", "make it again, or leave it out") from None
    return [_sample(row, number, name) for number, row in enumerate(rows)]


def _sample(row: dict[str, Any], number: int, name: str) -> Sample:
    if IMAGE not in row:
        raise InputError(f"{name} has no column {IMAGE!r}", "name the column of the image files so")
    image = row.pop(IMAGE)
    if isinstance(image, dict):
        image = image.get("bytes")
    if not (image is None or isinstance(image, bytes)):
        raise InputError(f"the column {IMAGE!r} of {name} holds no files", "store the files' bytes in it")
    return Sample(str(row.pop(KEY, f"{number:08}")), image, row)


def write_parquet(samples: Sequence[Sample]) -> bytes:
    """The table of samples; equal samples make equal bytes."""
    pyarrow = _pyarrow()
    rows = [{KEY: sample.key, IMAGE: sample.image, **sample.rest} for sample in samples]
    names = list(dict.fromkeys(name for row in rows for name in row)) or [KEY, IMAGE]
    table = pyarrow.table({name: [row.get(name) for row in rows] for name in names})
    file = io.BytesIO()
    pyarrow.parquet.write_table(table, file)
    return file.getvalue()


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError("Parquet files need pyarrow", "pip install 'quasinat[ray]'") from None
    return pyarrow
