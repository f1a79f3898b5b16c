"""ImageNet's validation images: their classes' numbers, what is drawn, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from quasinat.data import imagenet
from quasinat.data.imagenet import CLASSES
from quasinat.errors import InputError, UsageError

IDS = {"n01440764": 0, "n02102040": 217, "n03888257": 701}


def picture(path: Path, red: int, green: int, size: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((*size, 3), dtype=np.uint8)
    pixels[..., 0], pixels[..., 1] = red, green
    Image.fromarray(pixels).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three classes of four validation images of 40 x 30 pixels, and three training images of 20 x 16 each."""
    for label, name in enumerate(IDS):
        for number in range(4):
            picture(tmp_path / "val" / name / f"v{number}.png", label, number, (40, 30))
        for number in range(3):
            picture(tmp_path / "train" / name / f"t{number}.png", label, 100 + number, (20, 16))
    lines = ["file,wnid,class_index", *(f"{name}/v0.png,{name},{number}" for name, number in IDS.items())]
    (tmp_path / "val" / "labels.csv").write_text("\n".join(lines))
    return tmp_path


def test_the_classes_keep_their_numbers_and_the_halves_their_sizes(root: Path) -> None:
    data = imagenet(root, size=24, training_size=16)
    assert data.test_images.shape == (12, 3, 24, 24)
    assert data.train_images.shape == (9, 3, 16, 16)
    reds = torch.tensor(list(IDS.values()))
    for images, labels in ((data.test_images, data.test_labels), (data.train_images, data.train_labels)):
        assert reds[(255 * images[:, 0, 0, 0]).round().long()].equal(labels)
    assert len(data.classes) == CLASSES
    assert [data.classes[number] for number in (0, 1, 217)] == ["n01440764", "1", "n02102040"]
    (root / "val" / "labels.csv").write_text(
        "wnid,class_index,name\nn01440764,0,tench\nn02102040,217,\nn03888257,701,parachute"
    )
    named = imagenet(root, size=24, training_size=16)
    assert [named.classes[number] for number in (0, 1, 217, 701)] == ["tench", "1", "n02102040", "parachute"]
    alone = imagenet(root / "val", training=root / "train", size=24, training_size=16)
    assert alone.fingerprint() == data.fingerprint()


def test_as_many_of_every_class_are_drawn_and_the_seed_decides_which(root: Path) -> None:
    def names(seed: int) -> list[int]:
        data = imagenet(root, size=24, training_size=16, train=4, test=6, seed=seed)
        assert data.test_labels.tolist() == [0, 0, 217, 217, 701, 701]
        assert data.train_labels.tolist() == [0, 217, 701]
        return [int(value) for value in (255 * data.test_images[:, 1, 0, 0]).round()]

    assert names(0) == names(0)
    assert len({tuple(names(seed)) for seed in range(5)}) > 1


def test_without_a_file_of_numbers_all_classes_have_to_be_there(root: Path) -> None:
    (root / "val" / "labels.csv").unlink()
    with pytest.raises(InputError, match=r"3 class folders in .*, not 1000; unpack ImageNet"):
        imagenet(root, size=24, training_size=16)
    known = {f"n{number:08}" for number in range(CLASSES - 3)} | set(IDS)
    for half in ("val", "train"):
        for name in known - set(IDS):
            picture(root / half / name / "a.png", 0, 0, (24, 24))
    data = imagenet(root, size=24, training_size=16)
    assert data.classes == tuple(sorted(known))
    assert data.test_labels.max() == CLASSES - 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wnid,class_index\nn01440764,0\n", "the class n02102040 of .*train has no number; add it to .*labels.csv"),
        ("wnid,number\nn01440764,0\n", "no usable columns wnid and class_index"),
        ("wnid,class_index\nn01440764,1000\n", "no usable columns wnid and class_index"),
        ("wnid,class_index\nn01440764,many\n", "no usable columns wnid and class_index"),
    ],
)
def test_a_file_of_numbers_that_does_not_do_is_refused(root: Path, text: str, message: str) -> None:
    (root / "val" / "labels.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        imagenet(root, size=24, training_size=16)


def test_images_that_are_smaller_are_enlarged_and_the_others_stay_as_they_are(root: Path) -> None:
    """As everywhere ImageNet is measured: on all of its validation images."""
    generator = np.random.default_rng(0)
    small, thin = generator.integers(0, 256, (9, 6, 3), np.uint8), generator.integers(0, 256, (900, 2, 3), np.uint8)
    before = imagenet(root, size=24, training_size=16)
    Image.fromarray(small).save(root / "val" / "n01440764" / "v0.png")
    Image.fromarray(thin).save(root / "train" / "n01440764" / "t0.png")
    data = imagenet(root, size=24)
    for found, pixels in ((data.test_images, small[1:7]), (data.train_images, thin[449:451])):
        middle = Image.fromarray(pixels).resize((24, 24), Image.Resampling.LANCZOS)
        assert found[0].equal(torch.tensor(np.array(middle)).permute(2, 0, 1) / 255)
    assert data.test_images[1:].equal(before.test_images[1:])
    assert data.train_images[1:, :, 0, 0].equal(before.train_images[1:, :, 0, 0])  # each of one colour


def test_what_is_missing_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no folder .*elsewhere"):
        imagenet(root, training=tmp_path / "elsewhere", size=24)
    with pytest.raises(InputError, match="0 class folders"):
        imagenet(tmp_path / "nothing")
    with pytest.raises(UsageError, match="training_size is 0"):
        imagenet(root, size=24, training_size=0)
