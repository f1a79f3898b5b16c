"""Parquet tables of images: a column `image` of files, bytes or Hugging Face's {bytes, path}, and any others."""

import io
from collections.abc import Sequence
from typing import Any

from quasinat.data.sample import Sample
from quasinat.data.unpacking import most_unpacked
from quasinat.errors import InputError

IMAGE, KEY = "image", "__key__"
_TOGETHER = 64  # rows that are unpacked at once


def read_parquet(content: bytes, name: str) -> list[Sample]:
    """The rows of a table as samples; their keys are the column `__key__`, or the rows' numbers where there is none.

    Args:
        name: what messages call it.

    Raises:
        InputError: it is damaged, no Parquet file, unpacks to too much, or has no column `image` of files.
    """
    pyarrow = _pyarrow()
    rows: list[dict[str, Any]] = []
    most, size = most_unpacked(content), 0
    try:
        with pyarrow.parquet.ParquetFile(io.BytesIO(content)) as table:
            for batch in table.iter_batches(_TOGETHER):
                size += batch.nbytes
                if size > most:
                    problem = f"{name} unpacks to more than {most:,} bytes"
                    raise InputError(problem, "divide it into smaller tables")
                rows += batch.to_pylist()
    except InputError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise InputError(f"{name} is damaged or no Parquet file ({error})", "make it again, or leave it out") from None
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
