"""Trees of images: what is found, how it is read, where it goes, and PNG files that come back."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from quasinat.data.image_tree import (
    ImageTree,
    by_size,
    fit_channels,
    image_names,
    our_pngs,
    picture_size,
    png_names,
    read_png,
    rows_of_a_size,
    to_8_bits,
    write_png,
)
from quasinat.errors import InputError, UsageError
from sparse_coding.unchecked import unchecked

from .test_folder import save


def test_image_files_at_any_depth_are_found_in_order(tmp_path: Path) -> None:
    for name in ("b/2.PNG", "b/10.jpg", "a.png", "c/d/e.f/x.tiff", "b/.hidden.png", ".cache/1.png"):
        save(tmp_path / name)
    (tmp_path / "b" / "notes.txt").write_text("no image")
    (tmp_path / "b" / "folder.png").mkdir()
    assert list(image_names(tmp_path)) == ["a.png", "b/10.jpg", "b/2.PNG", "c/d/e.f/x.tiff"]
    assert ImageTree(tmp_path).names == list(image_names(tmp_path))


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    save(tmp_path / "elsewhere" / "1.png")
    save(tmp_path / "tree" / "2.png")
    (tmp_path / "tree" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "tree" / "again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "tree" / "circle").symlink_to(tmp_path / "tree")
    (tmp_path / "tree" / "broken.png").symlink_to(tmp_path / "nowhere.png")
    assert list(image_names(tmp_path / "tree")) == ["2.png", "again/1.png", "linked/1.png"]


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(InputError, match=rf"{tmp_path} cannot be listed \(Permission denied\); check its permissions"):
        list(image_names(tmp_path))


@pytest.mark.parametrize(
    ("mode", "colour", "rgb"),
    [
        ("RGB", (200, 100, 50), (200, 100, 50)),
        ("L", 80, (80, 80, 80)),
        ("1", 1, (255, 255, 255)),
        ("RGBA", (200, 100, 50, 0), (255, 255, 255)),
        ("RGBA", (0, 0, 0, 51), (204, 204, 204)),
        ("LA", (0, 0), (255, 255, 255)),
    ],
)
def test_an_image_is_read_as_the_layer_wants_it(
    tmp_path: Path, mode: str, colour: object, rgb: tuple[int, int, int]
) -> None:
    save(tmp_path / "a" / "1.png", colour, mode, size=(7, 5))
    tree = ImageTree(tmp_path)
    assert tree.size(0) == (5, 7)
    image = tree.read(0, 3)
    assert image.shape == (3, 5, 7)
    assert image.dtype == torch.float32
    assert (image[:, 2, 3] * 255).round().tolist() == list(rgb)
    grey = tree.read(0, 1)
    assert grey.shape == (1, 5, 7)
    assert abs(float(grey[0, 0, 0]) * 255 - sum(w * c for w, c in zip((0.299, 0.587, 0.114), rgb, strict=True))) < 0.51


def test_unusable_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"rubbish")
    whole = save(tmp_path / "1.png", size=(64, 64)).read_bytes()
    (tmp_path / "1.png").write_bytes(whole[: len(whole) // 2])
    save(tmp_path / "2.png", 40_000, "I;16")
    tree = ImageTree(tmp_path)
    with pytest.raises(InputError, match=r"0\.png cannot be read as an image \(no known image format\); replace it"):
        tree.size(0)
    assert tree.size(1) == (64, 64)  # of the header
    with pytest.raises(InputError, match=r"1\.png cannot be read as an image"):
        tree.read(1, 3)
    with pytest.raises(InputError, match=r"2\.png has colour mode I;16, more than 8 bits .*; save it as an 8-bit"):
        tree.read(2, 3)


@pytest.mark.parametrize("limit", [50, 20])
def test_a_decompression_bomb_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    path = save(tmp_path / "1.png", size=(10, 9))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    if limit == 50:
        assert picture_size(path) == (9, 10)
    with pytest.raises(InputError, match="more pixels than are safe to decode"):
        ImageTree(tmp_path).read(0, 3)


def test_channels_are_fitted() -> None:
    grey, colour = torch.rand(1, 2, 2), torch.rand(3, 2, 2)
    assert fit_channels(grey, 1) is grey
    assert fit_channels(grey, 3).equal(grey.expand(3, 2, 2))
    torch.testing.assert_close(fit_channels(fit_channels(grey, 3), 1), grey)
    luma = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    torch.testing.assert_close(fit_channels(colour, 1)[0], luma)
    with unchecked(), pytest.raises(InputError, match="of 2 channels does not fit a layer of 3; convert it"):
        fit_channels(torch.rand(2, 2, 2), 3)


def test_names_become_png_names() -> None:
    assert png_names(["a.JPG", "b/c.d.tiff", "cat/00001", "v1.2", "png"]) == [
        "a.png",
        "b/c.d.png",
        "cat/00001.png",
        "v1.2.png",
        "png.png",
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["x/a.jpg", "x/a.png"], r"x/a\.jpg and x/a\.png would both be written as x/a\.png; rename one of them"),
        (["a.jpg", "a.png/b.jpg"], r"a\.jpg and a\.png/b\.jpg would both be written as a\.png"),
        (["a.png/x/b.jpg", "a.jpg"], r"would both be written as a\.png"),
    ],
)
def test_two_images_with_one_name_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        png_names(names)


def test_groups_of_a_size() -> None:
    small, large = (4, 4), (8, 8)
    sized = [(0, small), (1, small), (3, small), (4, large), (5, small), (6, large), (7, large)]
    most = {small: 2, large: 3}
    rows = [(small, [0, 1]), (small, [3]), (large, [4]), (small, [5]), (large, [6, 7])]
    assert list(rows_of_a_size(sized, most.__getitem__)) == rows
    assert by_size(sized, most.__getitem__) == [(small, [0, 1]), (small, [3, 5]), (large, [4, 6, 7])]
    assert by_size([], most.__getitem__) == []


@pytest.mark.parametrize("channels", [1, 3])
def test_png_files_come_back(tmp_path: Path, channels: int, generator: torch.Generator) -> None:
    image = to_8_bits(torch.rand(1, channels, 5, 7, generator=generator))[0]
    path = tmp_path / "deep" / "1.png"
    write_png(path, image)
    found = read_png(path, channels, (5, 7))
    assert found is not None
    assert found.equal(image)
    with Image.open(path) as picture:
        assert (picture.format, picture.mode) == ("PNG", "RGB" if channels == 3 else "L")
    assert read_png(path, channels, (7, 5)) is None
    assert read_png(path, 4 - channels, (5, 7)) is None
    assert read_png(tmp_path / "nowhere.png", channels, (5, 7)) is None
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert read_png(path, channels, (5, 7)) is None
    assert [path.name for path in path.parent.iterdir()] == ["1.png"]


def test_rounding_is_to_the_nearest() -> None:
    values = torch.tensor([0.0, 1.0, 0.4 / 255, 0.6 / 255, 254.7 / 255]).view(1, 1, 1, 5)
    assert to_8_bits(values).flatten().tolist() == [0, 255, 0, 1, 255]


def test_our_files_are_told_from_others(tmp_path: Path) -> None:
    write_png(tmp_path / "a" / "ours.png", torch.zeros(3, 4, 4, dtype=torch.uint8))
    save(tmp_path / "a" / "theirs.png")
    (tmp_path / "damaged.png").write_bytes(b"rubbish")
    assert list(our_pngs(tmp_path)) == [tmp_path / "a" / "ours.png"]
