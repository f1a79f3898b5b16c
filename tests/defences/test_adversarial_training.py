"""Training on FGSM of drawn sizes: the sizes' distribution, whose decisions are left, and what comes of it."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from quasinat.attacks import Dissimilarity, Linf, fgsm
from quasinat.defences.adversarial_training import fgsm_of_drawn_size, train_on_fgsm, train_on_pgd
from quasinat.networks import VGG, vgg
from quasinat.training import train_classifier

QUICK: dict[str, Any] = {"epochs": 6, "batch_size": 16, "augment": False}


@pytest.fixture
def half() -> tuple[Tensor, Tensor]:
    """A class that is in a faint pattern, which an attack can turn round, and less surely in the brightness."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(256) % 2
    sign = (2.0 * labels - 1).view(-1, 1, 1, 1)
    pattern = torch.tensor([1.0, -1.0]).repeat(4).view(1, 1, 1, 8)
    brightness = 0.12 * sign + 0.07 * torch.randn(256, 1, 1, 1, generator=generator)
    images = 0.5 + brightness + 0.02 * sign * pattern + 0.01 * torch.randn(256, 1, 8, 8, generator=generator)
    return images.clamp(0, 1), labels


def small() -> VGG:
    return vgg("vgg-small", classes=2, channels=1)


def test_the_sizes_are_those_of_a_normal_that_ends_at_the_budget() -> None:
    network, image, label = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.full((1, 1, 2, 2), 0.5), torch.zeros(1)
    sizes = []
    for seed in range(400):
        made = fgsm_of_drawn_size(network, image, label.long(), seed=seed, budget=Linf(0.08))
        sizes.append(float((made - image).abs().max()))
    drawn = torch.tensor(sizes)
    assert drawn.max() <= 0.08 + 1e-6
    # |N(0, s)| cut off at 2 s: the shares below s / 2 and below s.
    for bound, share in ((0.02, 0.4013), (0.04, 0.7152)):
        found = float((drawn < bound).float().mean())
        assert abs(found - share) < 4 * (share * (1 - share) / 400) ** 0.5


def test_it_is_the_networks_own_decision_that_is_left(half: tuple[Tensor, Tensor]) -> None:
    network, (images, labels) = small().eval(), half
    right, wrong = (
        fgsm_of_drawn_size(network, images, truth, seed=3, budget=Linf(0.05)) for truth in (labels, 1 - labels)
    )
    assert right.equal(wrong)


@pytest.mark.parametrize("train", [train_on_fgsm, train_on_pgd])
def test_it_defends_against_the_attack_it_was_trained_on(half: tuple[Tensor, Tensor], train: Any) -> None:
    budget = Dissimilarity(0.08)
    plain = train_classifier(small(), *half, **QUICK)
    options = {"share": 0.5} if train is train_on_fgsm else {"steps": 3}
    hardened = train(small(), *half, budget=budget, **options, **QUICK)
    clean = (hardened(half[0]).argmax(1) == half[1]).float().mean()

    def survives(network: VGG) -> float:
        return float((~fgsm(network, *half, budget=budget).success).float().mean())

    assert survives(hardened) > survives(plain) + 0.1
    assert float(clean) > 0.85
