"""Links and odd files in the folders that are read and written.

Links are followed, wherever they lead: whoever names a folder names what it links to. A circle is entered once, folders
that link to each other without end are refused, and what is no file (a pipe, a device) is never opened.
"""

import os
from itertools import permutations
from pathlib import Path

import pytest
import torch
from PIL import Image

from layers import universal
from quasinat.data.image_tree import LINKS, image_names
from quasinat.data.places import Place
from quasinat.errors import InputError
from quasinat.experiments.projection import project_files
from quasinat.experiments.transforms import layer_transform
from quasinat.files import alone, write_text


def picture(path: Path, level: int = 128) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (12, 12), level).save(path)


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    universal(1).save(tmp_path / "layer.stl")
    return tmp_path / "layer.stl"


def test_project_follows_links_out_of_the_folder_once_around_a_circle_and_no_pipe(tmp_path: Path, layer: Path) -> None:
    tree = tmp_path / "tree"
    picture(tree / "a.png")
    picture(tmp_path / "outside" / "b.png", 60)
    (tree / "linked").symlink_to(tmp_path / "outside")
    (tree / "file.png").symlink_to(tmp_path / "outside" / "b.png")
    (tree / "circle").symlink_to(tree)
    (tree / "broken.png").symlink_to(tmp_path / "nowhere.png")
    (tree / "itself.png").symlink_to(tree / "itself.png")
    os.mkfifo(tree / "pipe.png")
    report = project_files(layer_transform(layer), tree, tmp_path / "out")
    assert report.failed == ()
    written = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")}
    assert written == {"a.png", "file.png", "linked/b.png"}
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))
    assert {path.name for path in (tmp_path / "outside").iterdir()} == {"b.png"}


def test_folders_that_link_to_each_other_are_refused_and_not_walked_for_ever(tmp_path: Path) -> None:
    names = "abcdefghijkl"  # half a milliard of paths
    for name in names:
        picture(tmp_path / name / "1.png")
    for first, second in permutations(names, 2):
        (tmp_path / first / f"to-{second}").symlink_to(tmp_path / second)
    with pytest.raises(InputError, match=f"more than {LINKS} links from folder to folder; pass a folder with"):
        list(image_names(tmp_path))


@pytest.mark.parametrize("count", [1, LINKS, LINKS + 1])
def test_as_many_links_as_allowed_are_followed(count: int, tmp_path: Path) -> None:
    for number in range(count + 1):
        (tmp_path / f"{number}").mkdir()
        if number:
            (tmp_path / f"{number - 1}" / "next").symlink_to(tmp_path / f"{number}")
    picture(tmp_path / f"{count}" / "x.png")
    if count <= LINKS:
        assert list(image_names(tmp_path / "0")) == ["next/" * count + "x.png"]
    else:
        with pytest.raises(InputError, match="lies behind more than"):
            list(image_names(tmp_path / "0"))


def test_a_place_on_a_disk_lists_files_only(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "broken.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "circle.png").symlink_to(tmp_path)
    (tmp_path / "linked.png").symlink_to(tmp_path / "a.png")
    assert Place(str(tmp_path)).names() == ["a.png", "linked.png"]


def test_a_link_in_the_place_of_a_lock_or_of_a_file_costs_nobody_his_file(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    for name in ("out.txt", ".out.txt.lock"):
        (tmp_path / name).symlink_to(tmp_path / "mine")
    with alone(tmp_path / "out.txt"):
        write_text(tmp_path / "out.txt", "new")
    assert (tmp_path / "mine").read_text() == "kept"
    assert (tmp_path / "out.txt").read_text() == "new"
    assert not (tmp_path / "out.txt").is_symlink()


def test_an_artefact_may_be_a_link(tmp_path: Path, layer: Path) -> None:
    (tmp_path / "link.stl").symlink_to(layer)
    assert torch.equal(layer_transform(tmp_path / "link.stl").module.filters, layer_transform(layer).module.filters)
