import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from experiments.conftest import MICRO
from quasinat import data
from quasinat.errors import InputError, UsageError
from quasinat.evaluation import wilson_interval
from quasinat.experiments import run_demo
from quasinat.files import read_tensors
from quasinat.layer import SparseTransformationLayer

Run = tuple[Path, dict[str, Any]]
ATTACKS = ["fgsm-0.08", "fgsm-0.04", "bim-0.03", "deepfool-0.03", "cw-0.03"]


def numbers(results: dict[str, Any]) -> dict[str, Any]:
    """The result without what may differ between two equal runs."""
    return {key: value for key, value in results.items() if key not in ("seconds", "peak_memory")}


class Log:
    """Notes the tasks; raises KeyboardInterrupt in the one that is named."""

    def __init__(self, interrupt_in: str | None = None) -> None:
        self.titles: list[str] = []
        self.interrupt_in = interrupt_in

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        self.titles.append(title)
        yield lambda done: self.hear(title)

    def hear(self, title: str) -> None:
        if title == self.interrupt_in:
            raise KeyboardInterrupt


def test_every_row_has_every_cell_with_its_interval(micro_run: Run) -> None:
    _, results = micro_run
    assert results["columns"] == ["clean", *ATTACKS]
    roles = [row["role"] for row in results["rows"]]
    assert roles == ["undefended", *["defence"] * 2, *["control"] * 3, *["defence"] * 2, *["white-box"] * 2]
    for row in results["rows"]:
        white = row["role"] == "white-box"
        expected = {"clean", "fgsm-0.08", "fgsm-0.04", "bim-0.03"} if white else {"clean", *ATTACKS}
        assert set(row["cells"]) == expected
        for cell in row["cells"].values():
            assert cell["n"] == (MICRO.white_box_images if white else 40)
            assert (cell["low"], cell["high"]) == wilson_interval(round(cell["value"] * cell["n"]), cell["n"])


def test_cells_agree_with_the_stored_outcomes(micro_run: Run) -> None:
    folder, results = micro_run
    outcomes, _ = read_tensors(folder / "steps" / "outcomes.safetensors")
    for row in results["rows"]:
        for column, cell in row["cells"].items():
            assert outcomes[f"{row['key']}/{column}"].double().mean().item() == pytest.approx(cell["value"])


def test_stored_adversarial_images_keep_their_budget(micro_run: Run) -> None:
    folder, results = micro_run
    clean = data.photographs(train_per_class=10, test_per_class=4).test_images
    for column in ATTACKS:
        images = read_tensors(folder / "steps" / f"attack-{column}.safetensors")[0]["images"]
        norms = (images - clean).flatten(1).norm(dim=1) / clean.flatten(1).norm(dim=1)
        assert norms.max() <= float(column.rsplit("-", 1)[1]) * (1 + 1e-4)
        assert results["strengths"][column]["dissimilarity"] == pytest.approx(float(norms.mean()), rel=1e-5)


def test_the_white_box_images_are_others_than_the_gray_box_ones(micro_run: Run) -> None:
    folder, _ = micro_run
    gray = read_tensors(folder / "steps" / "attack-fgsm-0.08.safetensors")[0]["images"][: MICRO.white_box_images]
    white = read_tensors(folder / "steps" / "attack-white-box-fgsm-0.08-universal.safetensors")[0]["images"]
    assert white.shape == gray.shape
    assert not torch.equal(white, gray)


def test_the_layers_are_left_as_artefacts(micro_run: Run) -> None:
    folder, results = micro_run
    for name, strata in (("universal", 1), ("stratified", MICRO.strata)):
        layer = SparseTransformationLayer.load(folder / f"{name}.stl")
        assert layer.filters.shape == (strata, MICRO.filters, 1, MICRO.filter_size, MICRO.filter_size)
        for curve in results["curves"][name]:
            assert curve[-1] < curve[0]
    assert sum(results["strata"]["sizes"]) == 40


def test_strengths_psnr_and_trade_off_are_finite(micro_run: Run) -> None:
    _, results = micro_run
    assert results["psnr"]["none"]["clean"] is None
    for name in ("universal", "stratified"):
        assert all(10 < value < 60 for value in results["psnr"][name].values())
    assert [point["sparsity"] for point in results["trade_off"]] == list(MICRO.trade_off)
    for strength in results["strengths"].values():
        assert all(math.isfinite(value) for value in strength.values())


def test_same_seed_same_numbers_even_when_interrupted(micro_run: Run, tmp_path: Path) -> None:
    _, undisturbed = micro_run
    folder = tmp_path / "run"
    for title in ("train the control classifier", "learn the stratified dictionaries", "attack bim-0.03"):
        log = Log(interrupt_in=title)
        with pytest.raises(KeyboardInterrupt):
            run_demo(MICRO, folder, progress=log)
        assert not list(folder.rglob("*.part"))
        assert not (folder / "results.json").exists()
    log = Log()
    assert numbers(run_demo(MICRO, folder, progress=log)) == numbers(undisturbed)
    assert "train the vanilla classifier" not in log.titles  # done before the first interruption
    log = Log()
    run_demo(MICRO, folder, progress=log)
    assert log.titles == []  # a finished run is read, not run


def test_another_seed_gives_other_numbers_and_is_refused_in_the_same_folder(micro_run: Run) -> None:
    folder, _ = micro_run
    with pytest.raises(UsageError, match="other settings"):
        run_demo(replace(MICRO, seed=1), folder)


def test_images_smaller_than_the_filters_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="smaller than the filters"):
        run_demo(replace(MICRO, filter_size=33), tmp_path / "run")


def test_a_folder_of_images_in_colour(tmp_path: Path) -> None:
    for name in ("coffee", "china"):
        picture = (data.photograph(name, colour=True) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(14):
            Image.fromarray(picture[8 * i : 8 * i + 40, 8 * i : 8 * i + 40]).save(tmp_path / f"images/{name}/{i}.png")
    settings = replace(
        MICRO, data="folder", root=str(tmp_path / "images"), train_per_class=50, trade_off=(0.2,), split="mid-grey"
    )
    results = run_demo(settings, tmp_path / "run")
    assert results["data"]["shape"] == [3, 32, 32]
    assert results["data"]["classes"] == ["china", "coffee"]
    assert results["data"]["train"] + results["data"]["test"] <= 28


def test_cifar10(real_data: Path, tmp_path: Path) -> None:
    results = run_demo(replace(MICRO, data="cifar10", root=str(real_data), trade_off=(0.2,)), tmp_path / "run")
    assert results["data"]["classes"][0] == "airplane"
    assert results["data"]["train"] == 100
