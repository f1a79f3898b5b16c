"""Archives: members that lead out of the folder, links, devices, bombs and doubles; what is written, and where."""

import bz2
import gzip
import io
import lzma
import tarfile
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from hardening.refusals import answer, is_clear
from quasinat.data import fetch, unpacking
from quasinat.data.fetch import FOLDER, unpack
from quasinat.data.parquet import read_parquet, write_parquet
from quasinat.data.sample import Sample, stays_inside
from quasinat.data.shards import Shard, read_shard, write_shard
from quasinat.data.tars import read_tar, write_tar
from quasinat.errors import InputError

Members = list[tuple[str, bytes | tuple[bytes, str]]]
FILES = {"data_batch_1": "5d41402abc4b2a76b9719d911017c592"}  # of "hello"
OUTSIDE = ["../x.png", "/tmp/x.png", "a/../../x.png", "..", "C:/x.png", "a\\..\\x.png", "a\0b.png"]
LINKS = {"symbolic": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE}
DEVICES = {"character": tarfile.CHRTYPE, "block": tarfile.BLKTYPE, "pipe": tarfile.FIFOTYPE, "folder": tarfile.DIRTYPE}


def archive(members: Members, pack: Callable[[bytes], bytes] = bytes) -> bytes:
    """A tar of members: names with their contents, or with a type and where a link leads."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, what in members:
            member = tarfile.TarInfo(name)
            content = what if isinstance(what, bytes) else b""
            member.size = len(content)
            if not isinstance(what, bytes):
                member.type, member.linkname = what
            tar.addfile(member, io.BytesIO(content))
    return pack(file.getvalue())


def below(folder: Path) -> Mapping[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", [*OUTSIDE[:3], "C:/x.png"])
def test_a_tar_of_samples_that_leads_out_is_refused(name: str) -> None:
    found = answer(lambda: read_tar(archive([("a.png", b"1"), (name, b"2")]), "x.tar"))
    assert isinstance(found, InputError)
    assert is_clear(found)
    assert f"names a file {name!r}, which is no relative path" in str(found)


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_leads_out_is_known(name: str) -> None:
    assert not stays_inside(name)


@pytest.mark.parametrize("name", ["a.png", "a/b.png", "ä/名.png", "...", "a..b/c"])
def test_what_stays_inside_is_known(name: str) -> None:
    assert stays_inside(name)


def test_a_key_of_a_table_makes_no_tar_that_leads_out() -> None:
    pytest.importorskip("pyarrow")
    rows = read_parquet(write_parquet([Sample("../../etc/x", b"1")]), "x.parquet")
    with pytest.raises(InputError, match="which is no relative path"):
        write_tar(rows)


def test_a_shard_names_no_image_outside(tmp_path: Path) -> None:
    import torch

    write_shard(tmp_path / "shard-00000.safetensors", Shard(torch.rand(1, 1, 4, 4), ("../x",)))
    with pytest.raises(InputError, match=r"names an image '\.\./x', which is no relative path"):
        read_shard(tmp_path / "shard-00000.safetensors")


@pytest.mark.parametrize("kind", LINKS.values(), ids=LINKS.keys())
@pytest.mark.parametrize("target", ["/etc/passwd", "a.png", "l.png"])
def test_links_in_a_tar_of_samples_are_passed_over(kind: bytes, target: str) -> None:
    assert read_tar(archive([("a.png", b"1"), ("l.png", (kind, target))]), "x.tar") == [Sample("a", b"1")]


@pytest.mark.parametrize("kind", DEVICES.values(), ids=DEVICES.keys())
def test_devices_in_a_tar_of_samples_are_passed_over(kind: bytes) -> None:
    assert read_tar(archive([("d.png", (kind, "")), ("a.png", b"1")]), "x.tar") == [Sample("a", b"1")]


def test_a_member_that_is_there_twice_is_refused() -> None:
    with pytest.raises(InputError, match=r"x\.tar holds 'a\.png' twice; leave one of them out"):
        read_tar(archive([("a.png", b"1"), ("a.cls", b"3"), ("a.png", b"2")]), "x.tar")


def test_a_file_with_holes_is_refused_before_it_is_unpacked() -> None:
    content = bytearray(archive([("a.png", b"1" * 512)]))
    content[156:157] = b"S"  # GNU's sparse file, whose size is what it unpacks to
    content[257:265] = b"ustar  \0"
    content[386:512] = bytes(126)
    content[386:410] = b"00000000000\0" + b"00000001000\0"
    content[483:495] = b"77777777777\0"
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    with pytest.raises(InputError, match="it holds a file with holes"):
        read_tar(bytes(content), "x.tar")


@pytest.mark.parametrize(
    "pack", [gzip.compress, bz2.compress, lambda data: lzma.compress(data, preset=0)], ids=["gzip", "bzip2", "xz"]
)
def test_a_bomb_is_refused_and_takes_no_more_than_the_limit(
    pack: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "UNPACKED", 2**20)
    good, bomb = archive([("a.png", b"1" * 2**19)], pack), archive([("a.png", bytes(2**25))], pack)
    assert len(bomb) < 2**19
    assert len(read_tar(good, "x.tar")) == 1
    tracemalloc.start()
    try:
        found = answer(lambda: read_tar(bomb, "x.tar"))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(found, InputError)
    assert str(found) == "x.tar unpacks to more than 1,048,576 bytes; store it without compression, or divide it"
    assert most < 2**23


def test_headers_of_headers_without_end_are_refused() -> None:
    header = bytearray(archive([("a" * 10, b"")])[:512])
    header[156:157] = b"L"  # GNU's long name of the next member, which has one again
    header[124:136] = b"00000000000\0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    found = answer(lambda: read_tar(bytes(header) * 3000, "x.tar"))
    assert isinstance(found, InputError)
    assert is_clear(found)


@pytest.mark.parametrize("size", [b"\x80" + b"\xff" * 11, b"\xff" * 12, b"\x80" + (2**63).to_bytes(11, "big")])
def test_a_size_beyond_any_file_is_refused(size: bytes) -> None:
    header = bytearray(archive([("a.png", b"1" * 512)]))
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    found = answer(lambda: read_tar(bytes(header), "x.tar"))
    assert found == [] or (isinstance(found, InputError) and is_clear(found))


def test_a_tar_of_several_xz_streams_is_read() -> None:
    whole = archive([("a.png", b"1" * 3000)])
    parts = [lzma.compress(whole[:1000]), bytes(4), lzma.compress(whole[1000:])]
    assert read_tar(b"".join(parts), "x.tar") == [Sample("a", b"1" * 3000)]
    found = answer(lambda: read_tar(b"".join(parts)[:-30], "x.tar"))
    assert isinstance(found, InputError)


def test_an_xz_file_that_asks_for_much_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "XZ_MEMORY", 2**24)
    hungry = lzma.compress(archive([("a.png", b"1")]), filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 2**25}])
    with pytest.raises(InputError, match="Memory usage limit exceeded"):
        read_tar(hungry, "x.tar")


def test_a_table_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(unpacking, "UNPACKED", 2**20)
    bomb = write_parquet([Sample(f"{number}", bytes(2**16)) for number in range(400)])  # one value, 400 times
    assert len(bomb) < 2**18
    with pytest.raises(InputError, match=r"x\.parquet unpacks to more than 1,048,576 bytes; divide it"):
        read_parquet(bomb, "x.parquet")


def test_cifar10s_archive_writes_its_own_files_and_nothing_else(tmp_path: Path) -> None:
    packed = archive(
        [
            ("../evil", b"x"),
            ("/tmp/quasinat-evil", b"x"),
            (f"{FOLDER}/data_batch_1", b"hello"),
            (f"{FOLDER}/../../evil", b"x"),
            (f"{FOLDER}/link", (tarfile.SYMTYPE, "/etc")),
            (f"{FOLDER}/link/evil", b"x"),
        ],
        gzip.compress,
    )
    (tmp_path / "x.tar.gz").write_bytes(packed)
    unpack(tmp_path / "x.tar.gz", tmp_path / "out", FILES)
    assert below(tmp_path / "out") == {"data_batch_1": b"hello"}
    assert set(below(tmp_path)) == {"x.tar.gz", "out/data_batch_1"}
    assert not Path("/tmp/quasinat-evil").exists()


@pytest.mark.parametrize("kind", [*LINKS.values(), *DEVICES.values()], ids=[*LINKS, *DEVICES])
@pytest.mark.parametrize("target", ["/etc/passwd", f"{FOLDER}/data_batch_1", "other"])
def test_cifar10s_archive_is_refused_where_a_link_stands_for_a_file(kind: bytes, target: str, tmp_path: Path) -> None:
    members: list[tuple[str, bytes | tuple[bytes, str]]] = [
        ("other", b"hello"),
        (f"{FOLDER}/data_batch_1", (kind, target)),
    ]
    (tmp_path / "x.tar.gz").write_bytes(archive(members, gzip.compress))
    found = answer(lambda: unpack(tmp_path / "x.tar.gz", tmp_path / "out", FILES))
    assert isinstance(found, InputError)
    assert is_clear(found)
    assert set(below(tmp_path)) == {"x.tar.gz"}


def test_cifar10s_archive_is_refused_where_a_file_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "LARGEST", 4)
    (tmp_path / "x.tar.gz").write_bytes(archive([(f"{FOLDER}/data_batch_1", b"hello")], gzip.compress))
    with pytest.raises(InputError, match="data_batch_1 is no file of at most 4 bytes"):
        unpack(tmp_path / "x.tar.gz", tmp_path / "out", FILES)


def test_of_a_file_that_is_there_twice_the_digest_decides(tmp_path: Path) -> None:
    members: list[tuple[str, bytes | tuple[bytes, str]]] = [
        (f"{FOLDER}/data_batch_1", word) for word in (b"hello", b"evil!")
    ]
    (tmp_path / "x.tar.gz").write_bytes(archive(members, gzip.compress))
    with pytest.raises(InputError, match="holds another data_batch_1 than the published one"):
        unpack(tmp_path / "x.tar.gz", tmp_path / "out", FILES)
    (tmp_path / "y.tar.gz").write_bytes(archive(members[::-1], gzip.compress))
    unpack(tmp_path / "y.tar.gz", tmp_path / "out", FILES)
    assert below(tmp_path / "out") == {"data_batch_1": b"hello"}


def test_a_link_where_a_file_is_to_be_written_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"kept")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "data_batch_1").symlink_to(tmp_path / "mine")
    (tmp_path / "x.tar.gz").write_bytes(archive([(f"{FOLDER}/data_batch_1", b"hello")], gzip.compress))
    unpack(tmp_path / "x.tar.gz", tmp_path / "out", FILES)
    assert below(tmp_path / "out") == {"data_batch_1": b"hello"}
    assert (tmp_path / "mine").read_bytes() == b"kept"
