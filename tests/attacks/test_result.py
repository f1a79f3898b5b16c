import math

import pytest
import torch
from torch import Tensor

from quasinat.attacks import AttackResult, distortion


def test_distortion_of_a_known_shift() -> None:
    grey = torch.full((3, 1, 6, 6), 0.5, dtype=torch.float64)
    found = distortion(grey, grey + 0.1)
    assert found.linf == pytest.approx(0.1)
    assert found.dissimilarity == pytest.approx(0.2)
    assert found.psnr == pytest.approx(20.0)


def test_an_untouched_batch_has_an_infinite_psnr(images: Tensor) -> None:
    size = len(images)
    result = AttackResult(images, torch.zeros(size, dtype=torch.bool), torch.ones(size, dtype=torch.int64))
    found = result.distortion(images)
    assert (found.linf, found.dissimilarity, found.psnr) == (0.0, 0.0, math.inf)
