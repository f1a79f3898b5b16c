"""ImageNet-10 from a tree of WordNet ids: the groups, what is drawn, what is passed over, what is refused."""

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from quasinat.data import Dataset, load, subset
from quasinat.data.image_files import read_picture
from quasinat.data.imagenet10 import imagenet10, imagenet10_groups
from quasinat.errors import InputError, UsageError
from quasinat.experiments import table_images
from quasinat.experiments.table_images import ImageSet, image_set_named
from quasinat.experiments.table_settings import table_settings


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two images for each WordNet id: the level of the red channel tells the class; one in each class is too small."""
    for label, ids in enumerate(imagenet10_groups().values()):
        for number, name in enumerate(ids):
            folder = tmp_path / "imagenet" / "train" / name
            folder.mkdir(parents=True)
            for index in range(2):
                side = (20, 30) if (number, index) == (0, 0) else (48, 36)
                picture = np.full((*side, 3), 25 * label, dtype=np.uint8)
                picture[..., 1] = 10 * number + index
                Image.fromarray(picture).save(folder / f"{name}_{index}.png")
    return tmp_path


def test_there_are_ten_groups_of_as_many_ids_and_none_is_in_two() -> None:
    groups = imagenet10_groups()
    assert len(groups) == 10
    assert {len(ids) for ids in groups.values()} == {10}
    every = [name for ids in groups.values() for name in ids]
    assert len(set(every)) == len(every)
    assert all(re.fullmatch(r"n\d{8}", name) for name in every)
    assert {"bird", "car", "cat"} < set(groups)  # those that the paper names


def test_each_class_is_drawn_from_all_its_ids_and_no_image_is_in_both_halves(tree: Path) -> None:
    data = imagenet10(tree / "imagenet", size=32, train_each=12, test_each=4)
    assert data.classes == tuple(imagenet10_groups())
    assert data.train_images.shape == (120, 3, 32, 32)
    assert data.test_images.shape == (40, 3, 32, 32)
    for images, labels in ((data.train_images, data.train_labels), (data.test_images, data.test_labels)):
        assert torch.equal((255 * images[:, 0, 0, 0]).round().long(), 25 * labels)
    for label in range(10):
        train, test = (
            (255 * images[labels == label][:, 1, 0, 0]).round().int().tolist()
            for images, labels in ((data.train_images, data.train_labels), (data.test_images, data.test_labels))
        )
        assert len({*train, *test}) == 16
        assert 0 not in {*train, *test}  # the one that is too small
        assert len({value // 10 for value in (*train, *test)}) > 6


def test_the_seed_decides_and_too_few_are_shared_in_proportion(tree: Path) -> None:
    first, second, other = (
        imagenet10(tree / "imagenet" / "train", size=32, train_each=8, test_each=2, seed=seed) for seed in (0, 0, 1)
    )
    assert first.fingerprint() == second.fingerprint() != other.fingerprint()
    whole = load("imagenet10", tree / "imagenet", size=32)
    assert whole.train_labels.bincount().tolist() == [15] * 10  # of 19, four fifths
    assert whole.test_labels.bincount().tolist() == [4] * 10


def test_a_smaller_request_is_part_of_a_larger_one_and_no_half_is_in_the_other(tree: Path) -> None:
    def drawn(train: int, test: int) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
        data = imagenet10(tree / "imagenet", size=32, train_each=train, test_each=test)
        halves = ((data.train_images, data.train_labels), (data.test_images, data.test_labels))
        train_half, test_half = (
            {(int(label), round(float(255 * image[1, 0, 0]))) for image, label in zip(*half, strict=True)}
            for half in halves
        )
        assert (len(train_half), len(test_half)) == (10 * train, 10 * test)
        return train_half, test_half

    few, more = drawn(3, 1), drawn(12, 4)
    assert few[0] < more[0]
    assert few[1] < more[1]
    assert not more[0] & more[1]


@pytest.mark.parametrize(("train", "test"), [(30, 10), (45, 1), (80, 80)])
def test_the_tables_decode_no_more_of_it_than_they_ask_for(
    train: int, test: int, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Path] = []

    def counted(path: Path) -> Image.Image:
        decoded.append(path)
        return read_picture(path)

    monkeypatch.setattr(sys.modules["quasinat.data.folder"], "read_picture", counted)
    monkeypatch.setitem(table_images.IMAGE_SETS, "imagenet10-64", ImageSet(table_images._imagenet10(32)))
    settings = replace(table_settings("smoke"), train=train, test=test)
    data, other = (image_set_named("imagenet10-64", tree, replace(settings, seed=seed)) for seed in (0, 1))
    each = (max(1, train // 10), max(1, test // 10))
    assert (len(data.train_images), len(data.test_images)) == (10 * each[0], 10 * each[1])
    assert len(decoded) == len(set(decoded[: len(decoded) // 2])) * 2 == 2 * 10 * sum(each)
    assert data.fingerprint() != other.fingerprint()
    direct = imagenet10(tree / "imagenet", size=32, train_each=each[0], test_each=each[1])
    assert data.fingerprint() == direct.fingerprint()


def test_no_preset_asks_for_more_than_the_paper_has(monkeypatch: pytest.MonkeyPatch, tree: Path) -> None:
    asked: list[Any] = []

    def noted(kind: str, root: Path, **options: Any) -> Dataset:
        asked.append((kind, root, options))
        return load(kind, root, **options | {"size": 32})

    monkeypatch.setattr(table_images, "load", noted)
    data = image_set_named("imagenet10-128", tree, table_settings("full"))
    assert asked == [("imagenet10", tree / "imagenet", {"size": 128, "train_each": 8000, "test_each": 2000, "seed": 0})]
    assert data.train_labels.bincount().tolist() == [15] * 10


def test_the_full_set_is_taken_before_the_folder_of_ten_classes(tree: Path) -> None:
    for part in ("train", "val"):
        for name in ("n01440764", "n99999999"):
            (tree / "imagenet10" / part / name).mkdir(parents=True)
            Image.new("RGB", (64, 64)).save(tree / "imagenet10" / part / name / "1.png")
    (tree / "imagenet" / "train").rename(tree / "aside")
    stand_in = image_set_named("imagenet10-64", tree, table_settings("smoke"))
    assert stand_in.classes == ("tench", "n99999999")
    assert "from the folder imagenet10" in stand_in.description
    (tree / "aside").rename(tree / "imagenet" / "train")
    with pytest.raises(InputError, match="0 images of 64 pixels of the class 'bird'"):
        image_set_named("imagenet10-64", tree, table_settings("smoke"))


def test_the_tables_take_it_where_no_folder_of_ten_classes_is(tree: Path) -> None:
    with pytest.raises(InputError, match="0 images of 64 pixels of the class 'bird'"):
        image_set_named("imagenet10-64", tree, table_settings("smoke"))


def test_what_is_missing_is_named(tree: Path) -> None:
    missing = tree / "imagenet" / "train" / imagenet10_groups()["car"][3]
    for path in missing.iterdir():
        path.unlink()
    missing.rmdir()
    with pytest.raises(InputError, match=rf"there is no folder .*{missing.name}; name the folder of ImageNet's"):
        imagenet10(tree / "imagenet", size=32)
    with pytest.raises(UsageError, match="train_each is 0"):
        imagenet10(tree, train_each=0)


def test_the_classes_of_a_folder_have_names_in_pictures_and_keep_their_images(tmp_path: Path) -> None:
    for part in ("train", "val"):
        for name in ("n01440764", "n99999999"):
            (tmp_path / "imagenet10" / part / name).mkdir(parents=True)
            for number in range(3):
                picture = np.full((64, 64, 3), number, dtype=np.uint8)
                Image.fromarray(picture).save(tmp_path / "imagenet10" / part / name / f"{number}.png")
    data = image_set_named("imagenet10-64", tmp_path, replace(table_settings("smoke"), train=4, test=2))
    assert data.classes == ("tench", "n99999999")
    plain = subset(load("folder", tmp_path / "imagenet10", size=64), 2, 1)
    assert data.fingerprint() == plain.fingerprint()
