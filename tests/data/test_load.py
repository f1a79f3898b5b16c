"""The registry of data sets."""

import subprocess
import sys
from pathlib import Path

import pytest

from quasinat.data import DATASETS, load
from quasinat.errors import UsageError


def test_photographs_by_name() -> None:
    dataset = load("photographs", train_per_class=2, test_per_class=1, seed=3)
    assert len(dataset.train_labels) == 20


def test_a_misspelt_kind_names_the_close_match() -> None:
    with pytest.raises(UsageError, match="did you mean 'cifar10'"):
        load("cifar-10")


@pytest.mark.parametrize("kind", ["cifar10", "folder"])
def test_a_missing_root_names_the_option(kind: str) -> None:
    with pytest.raises(UsageError, match=f"'{kind}' needs the folder of its files; name it with --root"):
        load(kind)


def test_a_root_for_the_built_in_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="built in; leave --root out"):
        load("photographs", tmp_path)


def test_a_misspelt_option_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no option 'color'; did you mean 'colour'"):
        load("photographs", color=True)
    with pytest.raises(UsageError, match="no option 'size'; leave it out"):
        load("cifar10", tmp_path, size=32)


def test_the_root_is_handed_on(tmp_path: Path) -> None:
    for kind in ("cifar10", "folder", "imagenet10", "imagenet"):
        with pytest.raises(ValueError, match=str(tmp_path)):
            load(kind, tmp_path)
    assert set(DATASETS) == {"photographs", "cifar10", "folder", "imagenet10", "imagenet"}


def test_importing_the_room_loads_nothing_heavy() -> None:
    heavy = "{'PIL', 'skimage', 'sklearn', 'scipy'}"
    code = f"import sys, quasinat.data; print({heavy} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
