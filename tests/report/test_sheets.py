"""The sheets: every pixel of a tile where it belongs, no text over another, and every size of dictionary."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from rich.console import Console
from torch import Tensor

from experiments.test_strata_report import stratified, universal
from quasinat.data import photograph
from quasinat.errors import InputError, UsageError
from quasinat.experiments import DemoSettings
from quasinat.experiments.strata_report import quality, strata_report
from quasinat.report.code_sheet import code_image, code_sheet, read_for
from quasinat.report.filter_sheet import (
    Sheet,
    columns_for,
    filter_sheet,
    filter_use,
    filters_of_layer,
    fitted,
    picture_format,
    roughness,
    tile_grid,
)
from quasinat.report.strata_sheet import (
    at_random,
    most_typical,
    strata_markdown,
    strata_sheet,
    strata_tables,
    strata_terminal,
    unchanged_words,
    write_strata,
)
from quasinat.sparse_coding import SparseCodingProblem, solve
from quasinat.strata import split_bands


def images_of(channels: int, count: int = 9, side: int = 24) -> Tensor:
    photo = photograph("chelsea", colour=channels == 3, size=128)
    return torch.stack([photo[:, 9 * i :, 11 * i :][:, :side, :side].clone() for i in range(count)])


def check_clean(sheet: Sheet) -> None:
    """No text and no picture overlaps another or leaves the sheet."""
    from matplotlib.backends.backend_agg import RendererAgg

    renderer = RendererAgg(1, 1, sheet.figure.dpi)
    boxes = [text.get_window_extent(renderer) for text in sheet.figure.texts if text.get_text()]
    boxes += [axes.get_window_extent() for axes in sheet.figure.axes]
    for i, one in enumerate(boxes):
        assert one.x0 >= 0 and one.y0 >= 0 and one.x1 <= sheet.width and one.y1 <= sheet.height, one  # noqa: PT018
        for other in boxes[:i]:
            apart = one.x0 >= other.x1 or other.x0 >= one.x1 or one.y0 >= other.y1 or other.y0 >= one.y1
            assert apart, (one, other)


def words(sheet: Sheet) -> list[str]:
    return [text.get_text() for text in sheet.figure.texts]


# Tiles


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 16, 31, 32, 64, 100, 127, 256, 512])
def test_columns_make_a_block_somewhat_wider_than_high(count: int) -> None:
    columns = columns_for(count)
    rows = -(-count // columns)
    assert columns * rows - count <= 2
    assert rows <= columns <= 4 * rows
    assert columns_for(64) == 8
    assert columns_for(512) == 32


def test_a_grid_holds_every_pixel_of_every_tile_on_white() -> None:
    tiles = torch.rand(5, 3, 2, 2, generator=torch.Generator().manual_seed(0)) / 2
    grid = tile_grid(tiles, 3, scale=4, gap=2)
    assert grid.shape == (3, 18, 28)
    for i, tile in enumerate(tiles):
        top, left = i // 3 * 10, i % 3 * 10
        assert grid[:, top + 1 : top + 8 : 4, left + 3 : left + 8 : 4].equal(tile)
    assert grid[:, 8:10].unique().tolist() == [1.0]
    assert grid[:, 10:, 20:].unique().tolist() == [1.0]  # the missing sixth


def test_an_image_is_fitted_by_whole_factors_or_scaled_down() -> None:
    image = torch.rand(1, 20, 30)
    same, *size = fitted(image, 100)
    assert (same is image, size) == (True, [90, 60])
    assert fitted(image, 75)[1:] == (75, 50)  # five pixels of the bitmap each
    assert fitted(image[:, :15, :29], 75)[1:] == (58, 30)  # five would not fill whole units
    between, *size = fitted(image, 25)
    assert (between.shape, size) == ((1, 34, 50), [25, 17])
    small, *size = fitted(torch.rand(3, 1000, 500), 100)
    assert (small.shape, size) == ((3, 200, 100), [50, 100])
    assert fitted(torch.rand(3, 4, 2000), 100)[2] == 1


def test_roughness_is_the_energy_of_differences() -> None:
    flat, stripes = torch.ones(1, 4, 4), torch.tensor([1.0, -1.0]).repeat(2).expand(1, 4, 4)
    assert roughness(torch.stack([flat, stripes, 7 * stripes, 0 * flat])).tolist() == [0.0, 3.0, 3.0, 0.0]


@pytest.mark.parametrize("strata", [1, 10])
@pytest.mark.parametrize(
    ("filters", "size", "channels"), [(1, 3, 1), (7, 16, 3), (32, 8, 3), (512, 3, 1), (512, 16, 3), (5, 8, 4)]
)
def test_every_size_of_dictionary_gives_a_clean_sheet(filters: int, size: int, channels: int, strata: int) -> None:
    atoms = torch.randn(strata, filters, channels, size, size, generator=torch.Generator().manual_seed(0))
    title = "a layer of a rather long name that ends somewhere.stl: its dictionaries and their filters, in order"
    sheet = filter_sheet(
        atoms,
        title=title,
        note="most used first",
        labels=["a stratum with a label longer than its block " * 3] * strata,
    )
    check_clean(sheet)
    assert len(sheet.figure.axes) == strata
    assert sheet.width <= 2500


def test_the_picture_holds_the_pixels_of_the_filters(tmp_path: Path) -> None:
    filters = torch.randn(2, 4, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    use = torch.tensor([[1.0, 4.0, 3.0, 2.0], [0.0, 0.0, 0.0, 1.0]])
    filter_sheet(filters, use=use).save(tmp_path / "sheet.png")
    with Pillow.open(tmp_path / "sheet.png") as picture:
        pixels = np.asarray(picture.convert("L")).astype(float) / 255
    left, top, scale = 2 * 24, 2 * (24 + 20), 2 * 24  # the margin, a line of text, an enlarged pixel
    first = pixels[top + scale // 2 :: scale, left + scale // 2 :: scale][:3, :3]
    most_used = filters[0, 1, 0]
    expected = 0.5 + 0.5 * most_used / most_used.abs().max()
    assert np.abs(first - expected.numpy()).max() < 0.01
    assert pixels[:40].min() == 1  # plain white above
    assert np.unique(pixels[top : top + 3 * scale, left : left + 3 * scale]).size <= 9


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("PDF", b"%PDF")])
def test_the_suffix_chooses_the_format_and_two_writings_agree(suffix: str, start: bytes, tmp_path: Path) -> None:
    sheets = [tmp_path / f"{name}.{suffix}" for name in "ab"]
    for path in sheets:
        filter_sheet(torch.randn(1, 3, 1, 4, 4, generator=torch.Generator().manual_seed(0)), title="$x_ü").save(path)
    assert sheets[0].read_bytes().startswith(start)
    assert sheets[0].read_bytes() == sheets[1].read_bytes()
    assert sorted(tmp_path.iterdir()) == sorted(sheets)
    with pytest.raises(UsageError, match=r"did you mean '\.png'"):
        picture_format(tmp_path / "sheet.pngg")
    with pytest.raises(UsageError, match="end its name in"):
        picture_format(tmp_path / "sheet")


def test_words_of_any_letters_fit_their_room() -> None:
    sheet = Sheet(200, 60)
    sheet.text(10, 10, "two\nlines \udce9 and 漢字, rather long for so little room", room=120)
    check_clean(sheet)
    assert words(sheet)[0].startswith("two lines ?")
    assert words(sheet)[0].endswith("…")


def test_lines_break_between_words() -> None:
    sheet = Sheet(200, 60)
    assert sheet.lines("English springer", room=200) == ["English springer"]
    assert sheet.lines("English \n springer", room=80) == ["English", "springer"]
    assert sheet.lines("a hippopotamus", room=20) == ["a", "hippopotamus"]
    assert sheet.lines("", room=20) == sheet.figure.texts == []


# Use


def test_use_is_the_sum_of_the_codes_of_each_stratum() -> None:
    images = images_of(3)
    layer = stratified(images)
    use = filter_use(layer, images)
    members = layer.stratum(images)
    for m in range(3):
        coded = split_bands(images[members == m], layer.split)[1]
        codes = solve(SparseCodingProblem(coded, layer.filters[m], layer.sparsity), layer.solver).codes
        torch.testing.assert_close(use[m], codes.abs().sum((0, 2, 3)))
    assert filter_use(layer, images[:1])[1:].unique().tolist() == [0.0]  # strata without images


def test_the_sheet_of_a_layer_says_its_order() -> None:
    images = images_of(1)
    layer = stratified(images)
    sheet = filters_of_layer(layer, "my.stl")
    assert words(sheet)[:2] == ["my.stl: 3 dictionaries of 6 filters of 5 × 5 pixels", "smoothest first"]
    assert "stratum 2" in words(sheet)
    settings = DemoSettings(train_per_class=2, test_per_class=2)
    counted = filters_of_layer(layer, "my.stl", settings, images=12)
    check_clean(counted)
    numbers = [int(label.split(": ")[1].split()[0]) for label in words(counted)[2:]]
    assert sum(numbers) == 12
    assert words(filters_of_layer(universal(), "one.stl"))[2] == "every image"


# Codes


@pytest.mark.parametrize(
    ("channels", "shape"), [(1, (24, 24)), (3, (32, 32)), (3, (12, 90)), (1, (300, 40)), (3, (130, 700))]
)
def test_codes_of_any_image_make_a_clean_sheet(channels: int, shape: tuple[int, int], tmp_path: Path) -> None:
    image = torch.nn.functional.interpolate(images_of(channels, 1), shape, mode="bilinear")[0]
    coded = code_image(universal(channels), image)
    sheet = code_sheet(coded, title="an image as a layer sees it")
    check_clean(sheet)
    sheet.save(tmp_path / "codes.png")
    used = min(10, int(coded.codes.flatten(1).any(1).sum()))
    assert len(sheet.figure.axes) == 8 + 2 * used


def test_the_facts_are_those_of_the_solution() -> None:
    images = images_of(3)
    layer = stratified(images)
    coded = code_image(layer, images[4])
    assert (coded.stratum, coded.margin) == (1, 1.0)
    torch.testing.assert_close(coded.seen, layer(images[4:5])[0], rtol=0, atol=1e-6)
    torch.testing.assert_close((coded.passed + coded.rebuilt).clamp(0, 1), coded.seen, rtol=0, atol=1e-6)
    torch.testing.assert_close(coded.passed + coded.coded, images[4])
    problem = SparseCodingProblem(coded.coded[None], layer.filters[1], layer.sparsity)
    assert coded.objective == pytest.approx(float(problem.objective(coded.codes[None])), rel=1e-4)
    assert coded.kkt_residual == pytest.approx(float(problem.kkt_residual(coded.codes[None])), abs=1e-3)
    said = dict(coded.facts())
    assert said["stratum"] == "1"
    assert said["active atoms"] == f"{coded.atoms} of 3,456"
    assert said["PSNR of T(x)"].endswith(" dB")
    assert coded.as_json()["nonzero"] == coded.atoms / 3456
    assert dict(code_image(universal(3), images[0]).facts())["margin of the vote"] == "none"


def test_a_flat_image_uses_no_filter() -> None:
    coded = code_image(universal(), torch.full((1, 16, 16), 0.5))
    sheet = code_sheet(coded)
    check_clean(sheet)
    assert coded.atoms == 0
    assert "no filter is used" in words(sheet)


def test_a_disc_lies_in_the_middle_of_its_atom() -> None:
    layer = universal()
    image = torch.full((1, 20, 20), 0.5)
    image[0, 3:8, 6:11] += layer.filters[0, 2, 0] / 2
    coded = code_image(layer, image)
    axes = code_sheet(coded).figure.axes[6]
    place = axes.collections[0].get_offsets()[0]  # of the largest
    assert np.abs(np.asarray(place) - [8.5, 5.5]).max() <= 1


def test_discs_and_image_are_in_the_same_pixels_after_resampling() -> None:
    image = torch.nn.functional.interpolate(images_of(1, 1), (60, 900), mode="bilinear")[0]
    axes = code_sheet(code_image(universal(), image)).figure.axes[6]
    assert axes.images[0].get_extent() == [0, 900, 60, 0]
    assert (axes.get_xlim(), axes.get_ylim()) == ((0, 900), (60, 0))


def test_an_image_file_is_read_as_the_layer_wants_it(tmp_path: Path) -> None:
    picture = np.zeros((12, 18, 4), dtype=np.uint8)
    picture[:6] = [255, 0, 0, 255]  # red above, transparent below
    Pillow.fromarray(picture).save(tmp_path / "half.png")
    colour = read_for(universal(3), tmp_path / "half.png")
    assert colour[:, 0, 0].tolist() == [1, 0, 0]
    assert colour[:, -1, 0].tolist() == [1, 1, 1]
    assert read_for(universal(1), tmp_path / "half.png", 6).shape == (1, 6, 9)
    with pytest.raises(UsageError, match="--image-size 0"):
        read_for(universal(1), tmp_path / "half.png", 0)
    with pytest.raises(InputError, match="there is no file"):
        read_for(universal(1), tmp_path / "none.png")
    with pytest.raises(InputError, match="2 channels"):
        read_for(universal(2), tmp_path / "half.png")


# Strata


def report_of(images: Tensor, count: int = 3, compared: bool = False) -> dict[str, Any]:
    layer = stratified(images, count)
    sets = {"clean": images} | {
        column: (images + 0.1).clamp(0, 1)
        for column in ("fgsm-0.08", "fgsm-0.04", "bim-0.03", "deepfool-0.03", "cw-0.03")
    }
    right = dict.fromkeys(sets, torch.ones(len(images), dtype=torch.bool))
    each, other = quality(layer, images), quality(universal(images.shape[1]), images) if compared else None
    return {
        "layer": {"dictionaries": count, "filters": 6, "filter_size": 5, "sparsity": 0.05, "split": "tikhonov"},
        "universal": {} if compared else None,
        "model": "trained here",
        "data": {"name": "photographs", "train": 60, "n": len(images)},
        "settings": {"network": "vgg-small", "epochs": 2, "seed": 0},
        **strata_report(layer, sets, right, each, other),
    }


def test_the_tables_hold_every_stratum_and_every_attack() -> None:
    report = report_of(images_of(1))
    text = strata_markdown(report)
    assert "| 0 | 3 | 3 | 1.00 | 100.0 |" in text
    assert text.count("not given") == 4
    assert "| DeepFool-0.03 | 100.0 | 1.00 |" in text
    assert "trained on 60 images for 2 epochs" in text
    assert "not given" not in strata_markdown(report_of(images_of(1), compared=True))
    share = report["columns"]["cw-0.03"]["unchanged"]["value"]
    assert unchanged_words(report).endswith(f", CW-0.03 {100 * share:.1f} %")
    assert unchanged_words(report).count("%") == 5
    for _, rows in strata_tables(report):
        assert len({len(row) for row in rows}) == 1


def test_the_terminal_tables_fit_80_columns_and_cut_nothing() -> None:
    written = io.StringIO()
    console = Console(width=80, file=written)
    report = report_of(images_of(1), count=9)
    for table in strata_terminal(report):
        console.print(table)
    text = written.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    share = report["columns"]["cw-0.03"]["unchanged"]
    assert f"[{100 * share['low']:.1f}, {100 * share['high']:.1f}]" in text


def test_samples_are_typical_or_random() -> None:
    latents = torch.tensor([[0.0], [10.0], [4.0], [1.0], [50.0]])
    members = torch.tensor([0, 0, 0, 0, 1])
    assert most_typical(latents, members, 0).tolist() == [2, 3, 0, 1]  # the mean is 3.75
    assert len(most_typical(latents, members, 2)) == 0
    drawn = at_random(members, 0, seed=1).tolist()
    assert sorted(drawn) == [0, 1, 2, 3]
    assert at_random(members, 0, seed=1).tolist() == drawn


@pytest.mark.parametrize(
    ("side", "filters", "size"), [(32, 32, 8), (64, 64, 8), (224, 7, 16), (24, 512, 3), (96, 1, 5)]
)
def test_every_stratum_has_its_images_beside_its_filters(side: int, filters: int, size: int) -> None:
    samples = [torch.rand(count, 3, side, side) for count in (40, 0, 3)]
    sheet = strata_sheet(samples, torch.randn(3, filters, 3, size, size), title="the strata", note="unchanged")
    check_clean(sheet)
    assert words(sheet)[:2] == ["the strata", "unchanged"]
    assert len(sheet.figure.axes) == 5  # a stratum without images has its filters alone


def test_three_files_are_written(tmp_path: Path) -> None:
    images = images_of(3)
    layer, report = stratified(images), report_of(images)
    write_strata(tmp_path, report, layer, images, samples="random")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["strata.json", "strata.md", "strata.png"]
    report["data"] |= {"name": "folder", "description": "10 classes of images from the folder imagenet10."}
    write_strata(tmp_path, report, layer, images)
    assert "test images of the folder imagenet10; the attacks" in (tmp_path / "strata.md").read_text(encoding="utf-8")
    with pytest.raises(UsageError, match="did you mean 'typical'"):
        write_strata(tmp_path, report, layer, images, samples="typcal")
