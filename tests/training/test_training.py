"""The loop and the classifier's use of it: what a seed decides, what is learned, what is refused."""

import pytest
import torch
from torch import Tensor, nn

from quasinat.errors import InputError, UsageError
from quasinat.networks import Normalise, vgg
from quasinat.training import minimise, train_classifier
from quasinat.training.loop import batches


def stripes(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images of horizontal and of vertical stripes with noise: a set that anything separates."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    wave = 0.5 + 0.3 * torch.sin(torch.arange(16) * torch.pi / 2)
    images = torch.where(labels[:, None, None] == 0, wave[:, None], wave[None, :])[:, None]
    return (images + 0.1 * torch.randn(count, 1, 16, 16, generator=generator)).clamp(0, 1), labels


def weights_of(network: nn.Module) -> Tensor:
    return torch.cat([value.flatten().double() for value in network.state_dict().values()])


def test_a_separable_set_is_learned() -> None:
    images, labels = stripes(96)
    losses: list[float] = []
    network = vgg("vgg-small", classes=2, channels=1)
    returned = train_classifier(
        network, images, labels, epochs=4, batch_size=16, on_epoch=lambda _, loss: losses.append(loss)
    )
    assert returned is network
    assert not any(module.training for module in network.modules())
    test_images, test_labels = stripes(100, seed=1)
    with torch.no_grad():
        assert (network(test_images).argmax(1) == test_labels).double().mean() > 0.95
    assert len(losses) == 4
    assert losses[-1] < losses[0] / 2


def test_the_seed_decides_and_the_global_generator_is_left_alone() -> None:
    images, labels = stripes(24)
    torch.manual_seed(3)
    before = torch.random.get_rng_state()

    def trained(seed: int) -> Tensor:
        network = vgg("vgg-small", classes=2, channels=1)
        return weights_of(train_classifier(network, images, labels, epochs=2, batch_size=8, seed=seed))

    first = trained(0)
    assert first.equal(trained(0))
    assert not first.equal(trained(1))
    assert torch.random.get_rng_state().equal(before)


def test_the_normalisation_is_the_training_sets() -> None:
    images, labels = stripes(24)
    network = train_classifier(vgg("vgg-small", classes=2, channels=1), images, labels, epochs=1)
    (normalise,) = (module for module in network.modules() if isinstance(module, Normalise))
    torch.testing.assert_close(normalise.mean.flatten(), images.mean((0, 2, 3)))


def test_a_loss_that_is_not_finite_stops_the_training() -> None:
    images, labels = stripes(24)
    images[7, 0, 0, 0] = torch.nan
    with pytest.raises(InputError, match="loss is no longer finite; lower the learning rate or check the images"):
        train_classifier(vgg("vgg-small", classes=2, channels=1), images, labels, epochs=1)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images_are_refused(count: int) -> None:
    images, labels = stripes(2)
    with pytest.raises(InputError, match=f"{count} training images are too few to train on; give at least two"):
        train_classifier(vgg("vgg-small", classes=2, channels=1), images[:count], labels[:count])


def test_batches_of_one_are_refused() -> None:
    images, labels = stripes(8)
    with pytest.raises(UsageError, match="batches of 1 are too small to train on; ask for at least two"):
        train_classifier(vgg("vgg-small", classes=2, channels=1), images, labels, batch_size=1)


def test_a_line_is_fitted() -> None:
    """Least squares in closed form against the loop."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 2, generator=generator)
    targets = inputs @ torch.tensor([2.0, -1.0]) + 0.5
    line = nn.Linear(2, 1)

    def loss(indices: Tensor, _: torch.Generator) -> Tensor:
        return (line(inputs[indices])[:, 0] - targets[indices]).square().mean()

    minimise(line, loss, count=200, epochs=40, batch_size=20, learning_rate=0.05)
    torch.testing.assert_close(line.weight.detach()[0], torch.tensor([2.0, -1.0]), rtol=0, atol=1e-2)
    torch.testing.assert_close(line.bias.detach(), torch.tensor([0.5]), rtol=0, atol=1e-2)


@pytest.mark.parametrize(("count", "size"), [(10, 3), (9, 4), (8, 4), (3, 64)])
def test_batches_are_a_shuffle_without_a_lone_image(count: int, size: int) -> None:
    drawn = list(batches(count, size, torch.Generator().manual_seed(0)))
    indices = torch.cat(drawn).tolist()
    assert len(set(indices)) == len(indices)
    assert set(indices) <= set(range(count))
    assert count - len(indices) == (1 if count % size == 1 else 0)
    assert all(2 <= len(batch) <= size for batch in drawn)
