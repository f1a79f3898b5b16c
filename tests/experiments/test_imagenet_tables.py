"""Tables 3 and 7 at a tiny size, with a MobileNetV2 of random weights; and attacks that move a set on average."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from quasinat.attacks import Dissimilarity
from quasinat.data.imagenet10 import imagenet10_groups
from quasinat.errors import UsageError
from quasinat.experiments import table_images
from quasinat.experiments.columns import BATCH, attacked, batch_size
from quasinat.experiments.mean_columns import moved_on_average, scaled_to_mean
from quasinat.experiments.table_attacks import column_attack
from quasinat.experiments.table_run import open_parts, run_tables
from quasinat.experiments.table_settings import PRESETS
from quasinat.experiments.table_spec import known_rows, table_named
from quasinat.files import read_tensors, write_tensors
from quasinat.networks import MobileNetV2, mobilenet

IDS = {"n01440764": 0, "n02102040": 217}
TINY = replace(
    PRESETS["smoke"],
    train=16,
    test=4,
    tuning_epochs=1,
    bim_steps=2,
    cw_steps=2,
    cw_search_steps=1,
    cw_constant=10.0,
    patches=60,
    atoms=20,
    autoencoder_epochs=1,
    dictionary_images=8,
    strata=2,
    filters=4,
    filter_size=5,
    crops=2,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes; `imagenet10` of 130 pixels and `imagenet-val` of 230; and random weights for all 1000 classes."""
    folder = tmp_path_factory.mktemp("imagenet")
    generator = np.random.default_rng(0)
    for part, count, side in (("imagenet10/train", 8, 130), ("imagenet10/val", 2, 130), ("imagenet-val", 2, 230)):
        for name in IDS:
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                rough = generator.integers(0, 256, (9, 9, 3), dtype=np.uint8)
                Image.fromarray(rough).resize((side, side)).save(folder / part / name / f"{number}.png")
    lines = ["wnid,class_index", *(f"{name},{number}" for name, number in IDS.items())]
    (folder / "imagenet-val" / "labels.csv").write_text("\n".join(lines))
    write_tensors(folder / "weights.safetensors", mobilenet(seed=3).state_dict(), {})
    return folder


@pytest.fixture(scope="module")
def full(root: Path) -> Path:
    """ImageNet as it is unpacked, with the ids of ImageNet-10: images of many shapes, some too small for any table."""
    folder = root / "official"
    generator = np.random.default_rng(1)
    ids = sorted(name for group in imagenet10_groups().values() for name in group)
    for half, names, sizes in (
        ("train", ids, ((140, 150), (300, 131), (90, 120))),
        ("val", ids[::25], ((500, 375), (240, 110), (60, 223))),
    ):
        for name in names:
            (folder / "imagenet" / half / name).mkdir(parents=True)
            for number, size in enumerate(sizes):
                rough = generator.integers(0, 256, (9, 9, 3), dtype=np.uint8)
                picture = Image.fromarray(rough).resize(size).convert("CMYK" if name == ids[0] else "RGB")
                picture.save(folder / "imagenet" / half / name / f"{name}_{number}.JPEG")
    lines = ["wnid,class_index", *(f"{name},{10 * number}" for number, name in enumerate(ids))]
    (folder / "imagenet" / "val" / "labels.csv").write_text("\n".join(lines))
    (folder / "weights.safetensors").symlink_to(root / "weights.safetensors")
    return folder


def run(root: Path, out: Path, name: str, only: str) -> dict[str, Any]:
    weights = root / "weights.safetensors"
    table = table_named(name)
    return run_tables([table], "tiny", TINY, root, out, only=only, device="cpu", weights=weights)[name]


def cells(result: dict[str, Any], key: str) -> dict[str, Any]:
    (row,) = (row for row in result["rows"] if row["key"] == key)
    return {name: cell for name, cell in row["cells"].items() if cell["status"] != "not run"}


def test_table_7_has_the_weights_as_they_are(root: Path, tmp_path: Path) -> None:
    for row in ("none", "pd-ens", "quilting", "stl-cluster"):
        result = run(root, tmp_path, "table7", f"{row}/[!c]*[!0-9]0?0[48]")
        result = run(root, tmp_path, "table7", f"{row}/clean")
    for row in ("none", "pd-ens", "quilting", "stl-cluster"):
        assert set(cells(result, row)) == {"clean", "fgsm-0.08", "fgsm-0.04"}
        assert {cell["status"] for cell in cells(result, row).values()} == {"done"}
        assert {cell["n"] for cell in cells(result, row).values()} == {4}
    assert result["data"]["shape"] == [3, 224, 224]
    assert result["network"] == "mobilenet"
    made, _ = read_tensors(tmp_path / "imagenet-tiny" / "networks" / "vanilla.safetensors")
    for name, value in mobilenet(seed=3).state_dict().items():
        assert made[name].equal(value)
    steps = {path.name for path in (tmp_path / "imagenet-tiny" / "steps").iterdir()}
    assert not any("-of-" in name for name in steps)  # T(x) of large images is not kept


def test_table_3_tunes_the_weights_on_ten_classes_and_moves_the_images_on_average(root: Path, tmp_path: Path) -> None:
    for row in ("none", "control", "stl-cluster", "stl-cluster-control", "d3-10k-4"):
        result = run(root, tmp_path, "table3", row)
    done = cells(result, "stl-cluster")
    assert {column: cell["status"] for column, cell in done.items() if "@" not in column} == dict.fromkeys(
        table_named("table3").columns, "done"
    )
    assert "failed" not in {cell["status"] for cell in done.values()}
    assert {row["key"] for row in result["rows"] if any(c["status"] == "done" for c in row["cells"].values())} == {
        "none",
        "control",
        "stl-cluster",
        "stl-cluster-control",
        "d3-10k-4",
    }
    for column, used in result["strengths"].items():
        if "@" not in column:
            assert used["dissimilarity"] == pytest.approx(0.06, rel=0.01), column
    parts = open_parts(
        "imagenet10-tuned", "tiny", TINY, root, tmp_path, device="cpu", weights=root / "weights.safetensors"
    )
    vanilla, retrained = parts.vanilla(), parts.retrained(known_rows()["stl-cluster"])
    assert isinstance(vanilla, MobileNetV2)
    assert vanilla.classes == 2
    assert not vanilla.classifier.weight.equal(retrained.classifier.weight)
    start = mobilenet(seed=3).stem.weight
    assert 0 < float((vanilla.stem.weight - start).detach().abs().max()) < 0.1  # tuned, not trained from nothing


@pytest.mark.parametrize(
    ("name", "row", "halves", "shape"),
    [
        ("table2a", "stl-cluster", (10, 10), [3, 64, 64]),
        ("table2b", "none", (10, 10), [3, 128, 128]),
        ("table3", "none", (10, 10), [3, 128, 128]),
        ("table7", "stl-cluster", (100, 4), [3, 224, 224]),
    ],
)
def test_the_tables_run_from_the_official_tree(
    name: str, row: str, halves: tuple[int, int], shape: list[int], full: Path, tmp_path: Path
) -> None:
    for column in ("clean", "fgsm*0.08" if name != "table3" else "fgsm*0.06"):
        result = run(full, tmp_path, name, f"{row}/{column}")
    data, done = result["data"], cells(result, row)
    assert (data["train"], data["test"]) == halves
    assert data["shape"] == shape
    assert ("ten groups of ImageNet's classes" if name != "table7" else "of imagenet/train at") in data["description"]
    assert len(done) == 2
    assert {(cell["status"], cell["n"]) for cell in done.values()} == {("done", halves[1])}


@pytest.mark.parametrize("preset", ["medium", "full"])
def test_no_preset_reads_all_of_imagenet(preset: str, full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of its training images at 224 px would fill half a terabyte."""
    assert 12 * (table_images.MOST_TRAIN * table_images.SMALLER**2 + table_images.MOST_TEST * 224**2) < 6e9
    monkeypatch.setattr(table_images, "MOST_TRAIN", 200)
    monkeypatch.setattr(table_images, "MOST_TEST", 8)
    data = table_images.image_set_named("imagenet", full, PRESETS[preset])
    assert data.train_images.shape == (200, 3, 128, 128)
    assert data.test_images.shape == (8, 3, 224, 224)
    assert set(data.test_labels.tolist()) <= set(range(0, 1000, 10))
    assert data.description.endswith("8 of them at 224 px, and 200 training images of imagenet/train at 128 px.")


def test_what_such_a_network_cannot_be_is_said(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="MobileNetV2 of ImageNet; name its file with --weights"):
        open_parts("imagenet", "tiny", TINY, root, tmp_path, device="cpu").vanilla()
    weights = root / "weights.safetensors"
    parts = open_parts("imagenet", "tiny", TINY, root, tmp_path / "whole", device="cpu", weights=weights)
    with pytest.raises(UsageError, match="only network of this table"):
        parts.classifier("control", lambda: parts.data.train_images)
    with pytest.raises(UsageError, match="a MobileNetV2 has no encoding"):
        parts.classifier("thermometer", lambda: parts.data.train_images, network={"encoding": "thermometer"})
    few = root / "few.safetensors"
    write_tensors(few, mobilenet(classes=3).state_dict(), {})
    parts = open_parts("imagenet", "tiny", TINY, root, tmp_path / "few", device="cpu", weights=few)
    with pytest.raises(UsageError, match="tell 3 classes apart, not 1000"):
        parts.vanilla()


def test_other_weights_are_another_run(root: Path, tmp_path: Path) -> None:
    weights, other = root / "weights.safetensors", root / "other.safetensors"
    open_parts("imagenet", "tiny", TINY, root, tmp_path, device="cpu", weights=weights)
    write_tensors(other, mobilenet(seed=4).state_dict(), {})
    with pytest.raises(UsageError, match="other settings or code"):
        open_parts("imagenet", "tiny", TINY, root, tmp_path, device="cpu", weights=other)


class Linear(nn.Module):
    """Logits that are linear in the pixels."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3, 48, generator=generator))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) @ self.weight.T


@pytest.fixture
def images() -> torch.Tensor:
    """Sixty images of different lengths."""
    generator = torch.Generator().manual_seed(1)
    return torch.rand(60, 3, 4, 4, generator=generator) * torch.linspace(0.3, 1, 60)[:, None, None, None]


@pytest.mark.parametrize("name", ["fgsm", "bim", "deepfool", "cw"])
def test_a_set_moves_by_the_size_on_average_and_not_each_image(name: str, images: torch.Tensor) -> None:
    model = Linear()
    labels = model(images).argmax(1)
    column = f"{name}-mean-0.06"
    attack = column_attack(column, replace(TINY, cw_steps=30, bim_steps=5), pytest.fail)
    made = moved_on_average(column, attack, model, images, labels, batch_size=25, keep=lambda _, run: run())
    moved = Dissimilarity(0.06).measure(images, made)
    assert float(moved.mean()) == pytest.approx(0.06, rel=6e-3)
    assert float(moved.std()) > 2e-3
    assert made.equal(made.clamp(0, 1))
    per_image = attacked(column_attack(f"{name}-0.06", TINY, pytest.fail), model, images, labels, report=lambda _: None)
    assert float(Dissimilarity(0.06).measure(images, per_image).max()) <= 0.06 + 1e-6


def test_the_factor_undoes_what_clipping_takes(images: torch.Tensor) -> None:
    towards = torch.where(images > 0.5, 1.0, -1.0)
    made = scaled_to_mean(images, (images + 0.001 * towards), 0.2)
    assert float(Dissimilarity(0.2).measure(images, made).mean()) == pytest.approx(0.2, rel=1e-4)
    with pytest.raises(UsageError, match=r"does not move the images by 0\.2 on average"):
        scaled_to_mean(images, images, 0.2)


def test_large_images_go_fewer_at_a_time() -> None:
    assert [batch_size(torch.empty(2, 3, side, side)) for side in (32, 64, 128, 224, 1024)] == [BATCH, BATCH, 50, 16, 1]
