"""Folders of images: both layouts, colour modes, and every way in which a file can be unusable."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from quasinat.data import folder
from quasinat.errors import InputError, UsageError


def save(path: Path, colour: object = (200, 100, 50), mode: str = "RGB", size: tuple[int, int] = (40, 36)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)  # type: ignore[arg-type]
    return path


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """Two classes of ten images; the red level names the image."""
    for index in range(10):
        save(tmp_path / "cat" / f"{index:02}.png", (index, 0, 0))
        save(tmp_path / "dog" / f"{index:02}.PNG", (100 + index, 0, 0))
    return tmp_path


def _reds(images: torch.Tensor) -> list[int]:
    return (images[:, 0, 0, 0] * 255).round().int().tolist()


def test_flat_class_folders_are_split(flat: Path) -> None:
    dataset = folder(flat)
    assert dataset.classes == ("cat", "dog")
    assert dataset.train_images.shape == (16, 3, 32, 32)
    assert dataset.test_images.shape == (4, 3, 32, 32)
    assert dataset.train_labels.tolist() == [0] * 8 + [1] * 8
    assert dataset.test_labels.tolist() == [0] * 2 + [1] * 2
    assert sorted(_reds(dataset.train_images) + _reds(dataset.test_images)) == [*range(10), *range(100, 110)]


def test_the_split_is_seeded_and_independent_of_other_classes(flat: Path) -> None:
    first, again = folder(flat), folder(flat)
    assert first.fingerprint() == again.fingerprint()
    assert len({tuple(_reds(folder(flat, seed=seed).test_images)) for seed in range(5)}) > 1
    save(flat / "ant" / "0.png")
    save(flat / "ant" / "1.png")
    with_ant = folder(flat)
    assert _reds(with_ant.test_images)[1:] == _reds(first.test_images)


@pytest.mark.parametrize(("share", "held"), [(0.01, 1), (0.5, 5), (0.99, 9)])
def test_both_halves_hold_something(flat: Path, share: float, held: int) -> None:
    assert folder(flat, test_share=share).test_labels.bincount().tolist() == [held, held]


@pytest.mark.parametrize("other", ["test", "val"])
def test_train_beside_test_or_val(tmp_path: Path, other: str) -> None:
    for half, red in (("train", 10), (other, 20)):
        save(tmp_path / half / "cat" / "1.jpg", (red, red, red))
        save(tmp_path / half / "dog" / "1.jpeg", (red + 1, red + 1, red + 1))
    dataset = folder(tmp_path)
    assert dataset.classes == ("cat", "dog")
    assert _reds(dataset.train_images) == [10, 11]
    assert _reds(dataset.test_images) == [20, 21]


def test_train_alone_names_the_two_remedies(tmp_path: Path) -> None:
    save(tmp_path / "train" / "cat" / "1.png")
    with pytest.raises(InputError, match=r"neither test/ nor val/; add one, or pass .*train"):
        folder(tmp_path)


def test_a_class_called_train_is_a_class(tmp_path: Path) -> None:
    for name in ("train", "plane"):
        save(tmp_path / name / "1.png")
        save(tmp_path / name / "2.png")
    assert folder(tmp_path).classes == ("plane", "train")


def test_halves_with_different_classes_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "train" / "cat" / "1.png")
    save(tmp_path / "test" / "cat" / "1.png")
    save(tmp_path / "test" / "dog" / "1.png")
    with pytest.raises(InputError, match="class 'dog' is in only one of"):
        folder(tmp_path)


def test_hidden_and_other_files_are_ignored(flat: Path) -> None:
    expected = folder(flat).fingerprint()
    (flat / "cat" / ".hidden.png").write_bytes(b"rubbish")
    (flat / "cat" / "notes.txt").write_text("not an image")
    (flat / "labels.csv").write_text("a,b")
    save(flat / ".cache" / "1.png")
    save(flat / "cat" / "deeper" / "1.png")
    assert folder(flat).fingerprint() == expected


def test_short_side_then_centre(tmp_path: Path) -> None:
    wide = Image.new("RGB", (120, 40), "black")
    wide.paste((255, 0, 0), (40, 0, 80, 40))
    (tmp_path / "a").mkdir()
    for name in ("1.png", "2.png"):
        wide.save(tmp_path / "a" / name)
    images = folder(tmp_path, size=20).train_images
    assert images.shape == (1, 3, 20, 20)
    # The middle third is red; only the resampling at its two edges differs.
    torch.testing.assert_close(images[0, 0, :, 3:-3], torch.ones(20, 14))
    assert images[:, 1:].max() == 0


@pytest.mark.parametrize(
    ("mode", "colour", "name"),
    [
        ("L", 80, "1.png"),
        ("1", 1, "1.png"),
        ("LA", (80, 255), "1.png"),
        ("RGBA", (200, 100, 50, 255), "1.png"),
        ("P", 0, "1.png"),
        ("CMYK", (10, 20, 30, 40), "1.jpg"),
    ],
)
def test_a_mode_other_than_rgb_is_named(flat: Path, mode: str, colour: object, name: str) -> None:
    path = save(flat / "eel" / name, colour, mode)
    save(flat / "eel" / "2.png")
    with pytest.raises(InputError, match=rf"{path} has colour mode {mode}, not RGB; .*--convert rgb\|grey") as caught:
        folder(flat)
    assert "\n" not in str(caught.value)
    assert folder(flat, convert="rgb").train_images.shape[1] == 3
    assert folder(flat, convert="grey").train_images.shape[1] == 1


@pytest.mark.parametrize(
    ("mode", "colour", "rgb"),
    [
        ("L", 80, (80, 80, 80)),
        ("RGBA", (200, 100, 50, 0), (255, 255, 255)),
        ("RGBA", (200, 100, 50, 255), (200, 100, 50)),
        ("RGBA", (0, 0, 0, 51), (204, 204, 204)),
        ("LA", (0, 0), (255, 255, 255)),
    ],
)
def test_convert_puts_transparent_images_over_white(
    tmp_path: Path, mode: str, colour: object, rgb: tuple[int, int, int]
) -> None:
    save(tmp_path / "a" / "1.png", colour, mode)
    save(tmp_path / "a" / "2.png", colour, mode)
    pixel = folder(tmp_path, convert="rgb").train_images[0, :, 5, 5]
    torch.testing.assert_close(pixel, torch.tensor(rgb) / 255)


def test_grey_is_the_luma(tmp_path: Path) -> None:
    for name in ("1.png", "2.png"):
        save(tmp_path / "a" / name, (200, 100, 50))
    pixel = folder(tmp_path, convert="grey").train_images[0, 0, 5, 5]
    assert abs(pixel.item() * 255 - (0.299 * 200 + 0.587 * 100 + 0.114 * 50)) < 1


def test_sixteen_bits_are_refused_even_with_convert(flat: Path) -> None:
    save(flat / "eel" / "1.png", 40_000, "I;16")
    save(flat / "eel" / "2.png")
    with pytest.raises(InputError, match="more than 8 bits per pixel and channel; save it as an 8-bit image"):
        folder(flat, convert="rgb")


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "webp", "tiff"])
def test_a_truncated_image_is_named(flat: Path, suffix: str) -> None:
    noise = Image.effect_noise((64, 64), 80).convert("RGB")
    path = flat / "cat" / f"00.{suffix}"
    noise.save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(
        InputError, match=rf"00\.{suffix} cannot be read as an image \(.*; replace it, or leave it out"
    ) as e:
        folder(flat)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("content", [b"", b"rubbish", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
def test_rubbish_with_an_image_suffix_is_named(flat: Path, content: bytes) -> None:
    (flat / "dog" / "03.PNG").write_bytes(content)
    with pytest.raises(InputError, match=r"03\.PNG cannot be read as an image"):
        folder(flat)


@pytest.mark.parametrize("limit", [1000, 500])
def test_a_decompression_bomb_is_named(flat: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """Pillow warns from one and refuses from two times its limit; both are an error here. 40 x 36 = 1440 pixels."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(InputError, match="more pixels than are safe to decode"):
        folder(flat)


def test_an_image_smaller_than_size_is_named(flat: Path) -> None:
    assert folder(flat, size=36).train_images.shape == (16, 3, 36, 36)
    with pytest.raises(InputError, match=r"00\.png has 40x36 pixels, less than size 37; choose a size of at most 36"):
        folder(flat, size=37, seed=1)


def test_an_empty_class_folder_is_named(flat: Path) -> None:
    (flat / "eel").mkdir()
    with pytest.raises(InputError, match="eel holds no images; add some"):
        folder(flat)


def test_a_class_of_one_cannot_be_split(flat: Path) -> None:
    save(flat / "eel" / "1.png")
    with pytest.raises(InputError, match="eel holds a single image"):
        folder(flat)


def test_no_class_folders(tmp_path: Path) -> None:
    save(tmp_path / "1.png")
    with pytest.raises(InputError, match=r"no class folders in .*; put the images into one folder per class"):
        folder(tmp_path)


def test_a_missing_root(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no folder .*nowhere; check the path"):
        folder(tmp_path / "nowhere")


def test_bad_options_are_refused(flat: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'grey'"):
        folder(flat, convert="gray")
    with pytest.raises(UsageError, match=r"test share of 1\.0"):
        folder(flat, test_share=1.0)
    with pytest.raises(UsageError, match="side of 0 pixels"):
        folder(flat, size=0)
