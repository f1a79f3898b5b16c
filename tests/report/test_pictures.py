import base64
import io

import numpy as np
import torch
from PIL import Image as Pillow

from quasinat.report.pictures import amplification, data_uri, difference_image, filter_tiles, mosaic, psnr


def decoded(uri: str) -> np.ndarray:
    head, _, body = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Pillow.open(io.BytesIO(base64.b64decode(body))))


def test_an_image_survives_the_png() -> None:
    grey = torch.tensor([[[0.0, 1.0], [0.5, 2.0]]])
    assert decoded(data_uri(grey)).tolist() == [[0, 255], [128, 255]]
    colour = torch.rand(3, 5, 4)
    assert np.array_equal(decoded(data_uri(colour)), (colour * 255).round().byte().permute(1, 2, 0).numpy())


def test_a_mosaic_has_transparent_gaps() -> None:
    picture = decoded(mosaic(torch.ones(3, 1, 2, 2), columns=2, scale=3))
    assert picture.shape == (15, 15, 2)
    assert picture[0, 0].tolist() == [255, 255]
    assert picture[0, 7, 1] == 0  # the gap
    assert picture[14, 14, 1] == 0  # the missing fourth tile
    assert decoded(mosaic(torch.ones(2, 3, 2, 2), columns=8)).shape == (2, 5, 4)


def test_each_filter_has_its_own_scale_around_mid_grey() -> None:
    filters = torch.tensor([-2.0, 1.0, 0.0, 0.0, 0.1, -0.05, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]).reshape(3, 1, 2, 2)
    tiles = filter_tiles(filters)
    assert tiles[0].flatten().tolist() == [0.0, 0.75, 0.5, 0.5]
    torch.testing.assert_close(tiles[1].flatten(), torch.tensor([1.0, 0.25, 0.5, 0.5]))
    assert tiles[2].unique().tolist() == [0.5]


def test_differences_are_signed_and_as_large_as_told() -> None:
    clean = torch.full((1, 1, 2, 2), 0.5)
    adversarial = clean + torch.tensor([[0.04, -0.04], [0.0, 0.04]])
    factor = amplification(adversarial - clean)
    assert factor == 5
    expected = torch.tensor([[[0.7, 0.3], [0.5, 0.7]]])
    torch.testing.assert_close(difference_image(adversarial[0], clean[0], factor), expected)
    assert amplification(torch.ones(1, 1, 2, 2)) == 1


def test_psnr() -> None:
    image = torch.zeros(1, 4, 4)
    assert psnr(image, image) is None
    assert abs((psnr(image + 0.1, image) or 0) - 20) < 1e-5
