"""The vote in a cube around the image, against the cube's exact volumes and against every point of it."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from quasinat.defences.region import RegionVote
from quasinat.errors import InputError, UsageError


class Bands(nn.Module):
    """Class 0, 1 or 2 by the sum of an image's pixels: below 0.9, below 1.1, above."""

    def forward(self, images: Tensor) -> Tensor:
        total = images.flatten(1).sum(1)
        number = (total >= 0.9).long() + (total >= 1.1).long()
        return 10 * nn.functional.one_hot(number, 3).to(images)


def enumerated(image: Tensor, radius: float, steps: int) -> Tensor:
    """The share of each class over every point of a grid that fills the cube around a tiny image."""
    middle = [(2 * i + 1) / steps - 1 for i in range(steps)]
    offsets = torch.tensor(list(itertools.product(middle, repeat=image.numel())), dtype=image.dtype)
    points = (image.flatten() + radius * offsets).clamp(0, 1)
    decisions = Bands()(points[:, None, None]).argmax(1)
    return torch.bincount(decisions, minlength=3) / len(points)


@pytest.mark.parametrize("values", [(0.5, 0.52), (0.44, 0.44), (0.57, 0.57), (0.02, 0.95)])
def test_the_votes_are_those_of_every_point_of_the_cube(values: tuple[float, float]) -> None:
    image = torch.tensor(values, dtype=torch.float64).view(1, 1, 1, 2)
    expected = enumerated(image[0], 0.1, 200)
    votes = 4000
    logits = RegionVote(Bands(), radius=0.1, votes=votes)(image)[0]
    counts = logits.exp() * (votes + 3) - 1
    assert counts.sum() == pytest.approx(votes)
    for count, share in zip(counts.tolist(), expected.tolist(), strict=True):
        assert abs(count - votes * share) <= 4 * math.sqrt(votes * share * (1 - share)) + 0.01 * votes
    assert int(logits.argmax()) == int(expected.argmax())


def test_a_hair_from_the_boundary_the_region_decides_and_not_the_point() -> None:
    image = torch.tensor([0.4501, 0.4501]).view(1, 1, 1, 2)  # a point of class 1, whose region is mostly class 0's
    assert int(Bands()(image).argmax()) == 1
    assert enumerated(image[0], 0.3, 200).argmax() == 0
    assert int(RegionVote(Bands(), radius=0.3)(image).argmax()) == 0


def test_an_image_votes_alike_alone_and_in_its_batch() -> None:
    images = torch.rand(5, 1, 1, 2, generator=torch.Generator().manual_seed(1))
    model = RegionVote(Bands(), radius=0.2, votes=300)
    together = model(images)
    for i in range(5):
        assert model(images[i : i + 1])[0].equal(together[i])
    assert model(images).equal(together)
    assert not RegionVote(Bands(), radius=0.2, votes=300, seed=1)(images).equal(together)
    afresh = RegionVote(Bands(), radius=0.2, votes=300, seed=None)
    assert not afresh(images).equal(afresh(images))


def test_the_softened_vote_has_the_gradient_of_the_mean_probability() -> None:
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    class Linear(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1) @ weight.T

    image = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64, requires_grad=True)
    model = RegionVote(Linear(), radius=0.1, votes=50).softened()
    (gradient,) = torch.autograd.grad(model(image)[0, 1], image)

    def value(step: Tensor) -> float:
        # The points must stay those of the image itself, so the difference quotient moves the weights' offset instead.
        class Moved(nn.Module):
            def forward(self, images: Tensor) -> Tensor:
                return (images + step).flatten(1) @ weight.T

        with torch.no_grad():
            return float(RegionVote(Moved(), radius=0.1, votes=50).softened()(image)[0, 1])

    for place in range(4):
        step = torch.zeros(4, dtype=torch.float64)
        step[place] = 1e-6
        quotient = (value(step.view(1, 2, 2)) - value(-step.view(1, 2, 2))) / 2e-6
        assert float(gradient.flatten()[place]) == pytest.approx(quotient, rel=1e-5)
    assert not RegionVote(Linear(), votes=50)(image).requires_grad


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="radius is 0"):
        RegionVote(Bands(), radius=0.0)
    with pytest.raises(UsageError, match="votes is 0"):
        RegionVote(Bands(), votes=0)
    with pytest.raises(InputError, match="image 0 leaves"):
        RegionVote(Bands())(torch.full((1, 1, 1, 2), 1.5))
    assert RegionVote(Bands())(torch.zeros(0, 1, 1, 2)).shape == (0, 3)
