"""Folders on a disk and elsewhere: what is written is listed and read, hidden files are passed over."""

from pathlib import Path

import pytest

from quasinat.data.places import Place
from quasinat.errors import InputError, OutputError


@pytest.fixture(params=["disk", "file", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    urls = {"disk": str(tmp_path / "a b"), "file": f"file://{tmp_path}/x", "memory": f"memory://{tmp_path.name}/x"}
    return Place(urls[request.param])


def test_files_are_written_listed_and_read(place: Place) -> None:
    assert place.names() == []
    place.write("b/c.tar", b"one")
    place.write("a.tar", b"two")
    place.write("b/c.tar", b"three")
    place.write(".quasinat/a.json", b"hidden")
    assert place.names() == ["a.tar", "b/c.tar"]
    assert place.read("b/c.tar") == b"three"
    assert place.read(".quasinat/a.json") == b"hidden"
    assert [place.holds(name) for name in ("a.tar", "none")] == [True, False]
    with pytest.raises(InputError, match="none cannot be read"):
        place.read("none")


def test_what_cannot_be_opened_or_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere://x cannot be opened"):
        Place("nowhere://x").names()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot write"):
        Place(str(tmp_path / "file")).write("x", b"")
