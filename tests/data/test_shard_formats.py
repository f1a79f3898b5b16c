"""Tars and tables give back what was put in, as the same bytes each time; damaged ones are refused in one line."""

import io
import tarfile
from typing import Any

import pytest

from quasinat.data.sample import Sample
from quasinat.data.shard_formats import SHARD_FORMATS, format_of
from quasinat.errors import InputError

pytest.importorskip("pyarrow")
SAMPLES = [
    Sample("a/0001", b"one", {"cls": b"3", "json": b'{"k": 1}'}),
    Sample("a/0002", b"two", {"cls": b"5", "json": b"{}"}),
]
every_format = pytest.mark.parametrize("name", SHARD_FORMATS)


@every_format
def test_what_was_written_is_read(name: str) -> None:
    form = SHARD_FORMATS[name]
    assert form.read(form.write(SAMPLES), "x") == SAMPLES
    assert form.write(SAMPLES) == form.write(list(SAMPLES))
    assert form.read(form.write([]), "x") == []


@every_format
@pytest.mark.parametrize("keep", [0, 20, 0.5, -1])
def test_a_damaged_file_is_refused_in_one_line(name: str, keep: float) -> None:
    whole = SHARD_FORMATS[name].write([Sample("k", bytes(range(256)) * 40)])
    cut = whole[: int(keep * len(whole)) if 0 < keep < 1 else int(keep)]
    if name == "webdataset" and keep == -1:
        cut = whole[:5000]  # the end of a tar is only padding
    with pytest.raises(InputError, match="bad is damaged or no") as refused:
        SHARD_FORMATS[name].read(cut, "bad")
    assert "\n" not in str(refused.value)


def test_a_tar_is_read_as_webdataset_has_it() -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        folder = tarfile.TarInfo("a")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, content in {"a/x.1.JPG": b"j", "a/x.cls": b"0", "b.txt": b"t", "c.seg.png": b"s"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    found = SHARD_FORMATS["webdataset"].read(file.getvalue(), "x")
    assert found == [
        Sample("a/x", None, {"1.jpg": b"j", "cls": b"0"}),
        Sample("b", None, {"txt": b"t"}),
        Sample("c", None, {"seg.png": b"s"}),
    ]


@pytest.mark.parametrize("image", [b"file", {"bytes": b"file", "path": None}])
def test_a_table_has_bytes_or_hugging_faces_files(image: Any) -> None:
    import pyarrow
    import pyarrow.parquet

    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"image": [image, None], "label": [3, 4]}), file)
    found = SHARD_FORMATS["parquet"].read(file.getvalue(), "x")
    assert found == [Sample("00000000", b"file", {"label": 3}), Sample("00000001", None, {"label": 4})]
    tar = SHARD_FORMATS["webdataset"]
    assert tar.read(tar.write(found[:1]), "x") == [Sample("00000000", b"file", {"label": b"3"})]


def test_a_table_without_images_is_refused() -> None:
    import pyarrow
    import pyarrow.parquet

    for columns, said in (({"picture": [b""]}, "no column 'image'"), ({"image": [3]}, "holds no files")):
        file = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.table(columns), file)
        with pytest.raises(InputError, match=said):
            SHARD_FORMATS["parquet"].read(file.getvalue(), "x")


def test_a_format_is_known_by_its_suffix() -> None:
    assert format_of("a/b.TAR") is SHARD_FORMATS["webdataset"]
    assert format_of("a.parquet") is SHARD_FORMATS["parquet"]
    assert format_of("a.png") is None
