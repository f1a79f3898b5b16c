"""TRADES' inner maximisation and its loss against their formulas, and what it makes of a network."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from quasinat.errors import UsageError
from quasinat.networks import VGG, vgg
from quasinat.training import train_classifier, train_trades
from quasinat.training.trades import around, disagreement

QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 16, "augment": False}


@pytest.fixture
def half() -> tuple[Tensor, Tensor]:
    """Images whose class is in a faint pattern and in a strong brightness alike."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(96) % 2
    sign = (2.0 * labels - 1).view(-1, 1, 1, 1)
    pattern = torch.tensor([1.0, -1.0]).repeat(4).view(1, 1, 1, 8)
    images = 0.5 + 0.1 * sign + 0.02 * sign * pattern + 0.03 * torch.randn(96, 1, 8, 8, generator=generator)
    return images.clamp(0, 1), labels


def small() -> VGG:
    return vgg("vgg-small", classes=2, channels=1)


def test_the_disagreement_is_the_divergence() -> None:
    generator = torch.Generator().manual_seed(1)
    logits, others = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64)
    p, q = logits.softmax(1), others.softmax(1)
    torch.testing.assert_close(disagreement(logits, others), (p * (p / q).log()).sum(1))
    assert float(disagreement(logits, logits).abs().max()) < 1e-12


class Linear(nn.Module):
    """Two logits, +-w x: the divergence grows along w's signs on both sides of x."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.linspace(-1, 1, 4, dtype=torch.float64)

    def forward(self, images: Tensor) -> Tensor:
        value = images.flatten(1) @ self.weight
        return torch.stack([value, -value], 1)


def test_the_ascent_ends_in_the_corner_of_the_ball_that_a_linear_model_disagrees_with_most() -> None:
    images = torch.full((3, 1, 2, 2), 0.5, dtype=torch.float64)
    model = Linear().train()
    found = around(model, images, radius=0.1, steps=10, step_size=0.03, generator=torch.Generator().manual_seed(2))
    moved = (found - images).flatten(1)
    corner = 0.1 * model.weight.sign()
    for row in moved:
        assert row.allclose(corner) or row.allclose(-corner)
    assert model.training
    edge = torch.full((1, 1, 2, 2), 0.97, dtype=torch.float64)
    assert float(around(model, edge, radius=0.1, steps=10, step_size=0.03, generator=torch.Generator()).max()) <= 1


def test_without_the_second_term_it_is_the_plain_training(half: tuple[Tensor, Tensor]) -> None:
    plain = train_classifier(small(), *half, **QUICK)
    trades = train_trades(small(), *half, beta=0.0, radius=0.0, steps=0, **QUICK | {"epochs": 2})
    with torch.no_grad():
        agree = (plain(half[0]).argmax(1) == trades(half[0]).argmax(1)).float().mean()
    assert float(agree) > 0.95


def test_it_makes_a_network_agree_with_itself(half: tuple[Tensor, Tensor]) -> None:
    options = QUICK | {"epochs": 5}
    plain = train_classifier(small(), *half, **options)
    trades = train_trades(small(), *half, radius=0.05, steps=4, **options)

    def worst(network: nn.Module) -> float:
        found = around(network, half[0], radius=0.05, steps=10, step_size=0.0125, generator=torch.Generator())
        with torch.no_grad():
            return float(disagreement(network(half[0]), network(found)).mean())

    assert worst(trades) < worst(plain) / 2
    assert float((trades(half[0]).argmax(1) == half[1]).float().mean()) > 0.9


def test_an_interrupted_training_ends_as_one_that_was_not(half: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    options: dict[str, Any] = QUICK | {"steps": 2}
    whole = train_trades(small(), *half, **options)

    def stop(epoch: int, loss: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_trades(small(), *half, checkpoint=tmp_path / "c", on_epoch=stop, **options)
    resumed = train_trades(small(), *half, checkpoint=tmp_path / "c", **options)
    for name, value in whole.state_dict().items():
        assert value.equal(resumed.state_dict()[name]), name
    with pytest.raises(UsageError, match="another training"):
        train_trades(small(), *half, checkpoint=tmp_path / "c", beta=1.0, **options)


def test_negative_numbers_are_refused(half: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(UsageError, match=r"beta is -1\.0"):
        train_trades(small(), *half, beta=-1.0)
