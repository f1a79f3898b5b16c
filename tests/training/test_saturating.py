"""Training of saturating networks: the loss by its formula, fewer unsaturated units, a task learned, continuation."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quasinat.errors import UsageError
from quasinat.networks import VGG, saturation_penalty, unsaturated, vgg
from quasinat.training import train_classifier
from quasinat.training.saturating import risen, train_saturating


def stripes(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images of horizontal and of vertical stripes with noise: a set that anything separates."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    wave = 0.5 + 0.3 * torch.sin(torch.arange(16) * torch.pi / 2)
    images = torch.where(labels[:, None, None] == 0, wave[:, None], wave[None, :])[:, None]
    return (images + 0.1 * torch.randn(count, 1, 16, 16, generator=generator)).clamp(0, 1), labels


OPTIONS: dict[str, Any] = {"epochs": 4, "batch_size": 16}


def new() -> VGG:
    return vgg("vgg-small", classes=2, channels=1, activation="saturating")


def same(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(value.equal(theirs[name]) for name, value in ours.items())


def test_units_saturate_and_the_task_is_learned() -> None:
    images, labels = stripes(96)
    others, truth = stripes(100, seed=1)
    shares = {}
    for penalty in (0.0, 10.0):
        network = new()
        returned = train_saturating(network, images, labels, penalty=penalty, **OPTIONS | {"epochs": 8})
        assert returned is network
        assert not any(module.training for module in network.modules())
        with torch.no_grad():
            assert float((network(others).argmax(1) == truth).double().mean()) > 0.95
        shares[penalty] = unsaturated(network, others)
    assert shares[10.0] < 0.6 * shares[0.0]


def test_without_a_penalty_it_is_plain_training_to_the_bit() -> None:
    images, labels = stripes(32)
    options = OPTIONS | {"epochs": 2, "label_smoothing": 0.1, "noise": 0.05, "seed": 3}
    plain = train_classifier(new(), images, labels, **options)
    assert same(train_saturating(new(), images, labels, penalty=0.0, **options), plain)
    assert not same(train_saturating(new(), images, labels, penalty=1.0, **options), plain)


def test_the_loss_is_the_formula() -> None:
    """Epochs of one step that changes nothing: the loss is that of the untrained network, at each epoch's weight."""
    images, labels = stripes(16)
    heard: list[float] = []
    train_saturating(
        new(),
        images,
        labels,
        penalty=2.0,
        rise=0.5,
        epochs=4,
        batch_size=16,
        learning_rate=1e-12,
        weight_decay=0.0,
        label_smoothing=0.1,
        augment=False,
        on_epoch=lambda _, loss: heard.append(loss),
    )
    network = new()
    network.normalise.fit(images)
    with torch.no_grad():
        logits, unsaturation = saturation_penalty(network.train(), images)
        entropy = float(F.cross_entropy(logits, labels, label_smoothing=0.1))
    weights = [0.0, 1.0, 2.0, 2.0]  # over the first two of four epochs
    assert heard == pytest.approx([entropy + weight * float(unsaturation) for weight in weights], rel=1e-4)


def test_the_weight_rises_in_equal_steps() -> None:
    assert [risen(done, 4.0) for done in range(7)] == [0, 0.25, 0.5, 0.75, 1, 1, 1]
    assert [risen(done, 2.5) for done in range(4)] == [0, 0.4, 0.8, 1]
    assert risen(0, 0.0) == 1


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_continued_training_ends_as_an_uninterrupted_one(after: int, tmp_path: Path) -> None:
    images, labels = stripes(32)
    options = OPTIONS | {"epochs": 3, "noise": 0.05}
    told: dict[str, list[tuple[int, float]]] = {"whole": [], "continued": []}

    def stop(epoch: int, _: float) -> None:
        if epoch == after:
            raise KeyboardInterrupt

    whole = train_saturating(new(), images, labels, **options, on_epoch=lambda *both: told["whole"].append(both))
    kept = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        train_saturating(new(), images, labels, **options, checkpoint=kept, on_epoch=stop)
    hear = told["continued"].append
    continued = train_saturating(new(), images, labels, **options, checkpoint=kept, on_epoch=lambda *both: hear(both))
    assert same(continued, whole)
    assert told["continued"] == told["whole"]


def test_the_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    images, labels = stripes(32)
    options = OPTIONS | {"epochs": 1, "checkpoint": tmp_path / "checkpoint"}
    train_saturating(new(), images, labels, **options, penalty=2.0)
    with pytest.raises(UsageError, match=r"penalty: 2.0, not 1.0"):
        train_saturating(new(), images, labels, **options, penalty=1.0)
    with pytest.raises(UsageError, match=r"rise: 0.5, not 0.25"):
        train_saturating(new(), images, labels, **options, penalty=2.0, rise=0.25)
    with pytest.raises(UsageError, match="is the checkpoint of another training"):
        train_classifier(new(), images, labels, **options)


def test_networks_of_equal_shapes_and_other_activations_have_checkpoints_of_their_own(tmp_path: Path) -> None:
    images, labels = stripes(32)
    options = OPTIONS | {"epochs": 1, "checkpoint": tmp_path / "checkpoint"}
    train_classifier(vgg("vgg-small", classes=2, channels=1), images, labels, **options)
    with pytest.raises(UsageError, match=r"activation: None, not saturating"):
        train_classifier(new(), images, labels, **options)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"penalty": -1.0}, "penalty is -1.0; give a finite number of at least 0"),
        ({"penalty": float("nan")}, "penalty is nan"),
        ({"penalty": float("inf")}, "penalty is inf"),
        ({"rise": 1.5}, "cannot rise over a share of 1.5 of the epochs; give a number from 0 to 1"),
        ({"rise": float("nan")}, "cannot rise over a share of nan"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, float], match: str) -> None:
    images, labels = stripes(8)
    with pytest.raises(UsageError, match=match):
        train_saturating(new(), images, labels, **options)


def test_a_network_without_saturating_units_is_refused() -> None:
    images, labels = stripes(8)
    with pytest.raises(UsageError, match="the VGG has no saturating units; build it with activation='saturating'"):
        train_saturating(vgg("vgg-small", classes=2, channels=1), images, labels)
