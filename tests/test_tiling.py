"""T(x) in tiles against T(x) of the whole image."""

import pytest
import torch
from torch import Tensor

from layers import images_of, strata_of, stratified, universal
from quasinat import tiling
from quasinat.data import photograph
from quasinat.errors import UsageError
from quasinat.layer import SparseTransformationLayer
from quasinat.sparse_coding import Auto
from quasinat.strata import learn_dictionaries
from quasinat.tiling import project_in_tiles, project_large, spans

SEAM = 1e-3


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    """Two photographs of 320 x 256 pixels."""
    return torch.stack([photograph(name, colour=True, size=320)[:, :, :256] for name in ("coffee", "chelsea")])


@pytest.fixture(scope="module")
def learned(pictures: Tensor) -> SparseTransformationLayer:
    """A layer of 8 x 8 filters that were learned on pieces of the photographs, solved closely."""
    pieces = pictures.unfold(2, 32, 32).unfold(3, 32, 32).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, 32, 32)
    dictionaries = learn_dictionaries(pieces, filters=32, passes=2)
    return SparseTransformationLayer(None, dictionaries, 0.2, solver=Auto(tolerance=1e-4))


def error(layer: SparseTransformationLayer, images: Tensor, **options: int) -> float:
    """The largest difference that tiles make."""
    return float((project_in_tiles(layer, images, **options) - layer.project(images)).abs().max())


@pytest.mark.parametrize("tile", [60, 100])
def test_the_seams_are_not_seen(tile: int, learned: SparseTransformationLayer, pictures: Tensor) -> None:
    assert error(learned, pictures, tile=tile) < SEAM / 2
    assert error(learned, pictures, tile=tile, margin=4) > 10 * SEAM


def test_a_wider_margin_is_closer(learned: SparseTransformationLayer, pictures: Tensor) -> None:
    narrow, middle, wide = (error(learned, pictures, tile=64, margin=margin) for margin in (8, 24, 64))
    assert narrow > 2 * middle > 4 * wide


def test_an_image_that_fits_is_coded_as_it_is(learned: SparseTransformationLayer, pictures: Tensor) -> None:
    assert project_in_tiles(learned, pictures).equal(torch.cat([learned.project(each[None]) for each in pictures]))


def test_the_stratum_is_the_whole_images() -> None:
    layer, images = stratified(), images_of(3, 6, 40, 36)
    members = strata_of(3)(images)
    assert len(members.unique()) > 1
    made = project_in_tiles(layer, images, tile=16, margin=15)
    for image, stratum, found in zip(images, members.tolist(), made, strict=True):
        expected = layer.within(stratum).project(image[None])[0]
        assert float((found - expected).abs().mean()) < SEAM


@pytest.mark.parametrize("tile", [1, 7, 30])
@pytest.mark.parametrize("length", [5, 29, 60, 61])
@pytest.mark.parametrize("margin", [1, 9])
def test_the_tiles_cover_the_axis_and_see_what_is_around_them(tile: int, length: int, margin: int) -> None:
    found = list(spans(length, tile, margin))
    assert sorted({place for span in found for place in range(length)[span.own]}) == list(range(length))
    for span in found:
        own = torch.arange(length)[span.own]
        assert span.seen[span.inner].equal(own)
        assert len(span.seen) == min(length, tile + 2 * margin)
        if len(span.seen) < length:
            assert span.seen.equal(torch.arange(int(own[0]) - margin, int(own[-1]) + margin + 1) % length)


def test_large_images_go_in_tiles_where_the_layer_lets_them(
    learned: SparseTransformationLayer, pictures: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert project_large(learned, pictures).equal(learned.project(pictures))
    monkeypatch.setattr(tiling, "LARGE", 320 * 256)
    monkeypatch.setattr(tiling, "project_in_tiles", lambda layer, images: images)
    assert project_large(learned, pictures).equal(pictures)
    assert not project_large(learned, pictures[:, :, 1:]).equal(pictures[:, :, 1:])
    whole = universal(normalise="max")
    assert project_large(whole, pictures).equal(whole.project(pictures))


def test_what_needs_the_whole_image_is_refused(pictures: Tensor) -> None:
    for options in ({"refine": 1}, {"normalise": "max"}):
        with pytest.raises(UsageError, match="needs the whole image at once"):
            project_in_tiles(universal(**options), pictures)
    for name in ("tile", "margin"):
        with pytest.raises(UsageError, match=f"{name} is 0"):
            project_in_tiles(universal(), pictures, **{name: 0})
