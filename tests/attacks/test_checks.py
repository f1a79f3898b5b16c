import pytest
import torch

from quasinat.attacks import bim
from quasinat.attacks.budget import Linf
from quasinat.attacks.checks import check_images, check_labels
from quasinat.errors import InputError

from .conftest import Linear


def test_integer_or_unbatched_images_are_refused() -> None:
    with pytest.raises(InputError, match=r"torch.uint8; convert them to floating point"):
        check_images(torch.zeros(2, 1, 6, 6, dtype=torch.uint8))
    with pytest.raises(InputError, match="B C H W"):
        check_images(torch.zeros(1, 6, 6))


def test_labels_must_be_one_int64_per_image() -> None:
    with pytest.raises(InputError, match="convert them to int64"):
        check_labels(torch.zeros(2), 2)
    with pytest.raises(InputError, match="for 3 images"):
        check_labels(torch.zeros(2, dtype=torch.int64), 3)


def test_a_gradient_with_nan_names_its_image() -> None:
    class Root(Linear):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images) + images.flatten(1).amax(1, keepdim=True).sub(0.5).clamp(min=0).sqrt()

    images = torch.full((3, 1, 6, 6), 0.7, dtype=torch.float64)
    images[1] = 0.5
    with pytest.raises(InputError, match="image 1 has a gradient that is not finite"):
        bim(Root(3), images, torch.zeros(3, dtype=torch.int64), budget=Linf(0.1), steps=2)
