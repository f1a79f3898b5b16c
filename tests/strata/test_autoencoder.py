"""The denoising autoencoder learns, denoises, and is the seed's."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from quasinat.data import photographs
from quasinat.errors import InputError, UsageError
from quasinat.strata import DenoisingAutoencoder, Strata, load_autoencoder, save_autoencoder, train_autoencoder


@pytest.fixture(scope="module")
def patches() -> tuple[Tensor, Tensor]:
    dataset = photographs(train_per_class=24, test_per_class=2)
    return dataset.train_images, dataset.test_images


def test_it_learns_and_denoises(patches: tuple[Tensor, Tensor]) -> None:
    losses: list[float] = []
    network = train_autoencoder(
        patches[0], width=16, epochs=12, batch_size=32, noise=0.3, on_epoch=lambda _, loss: losses.append(loss)
    )
    assert len(losses) == 12
    assert losses[-1] < 0.6 * losses[0]
    assert not network.training
    clean = patches[1]
    noisy = clean + 0.3 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        denoised = network(noisy)
    assert F.mse_loss(denoised, clean) < 0.6 * F.mse_loss(noisy, clean)


def test_the_seed_decides_and_the_global_generator_is_left_alone(patches: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, second, other = (train_autoencoder(patches[0][:40], width=4, epochs=1, seed=seed) for seed in (0, 0, 1))
    assert torch.random.get_rng_state().equal(before)
    weights = [torch.cat([p.flatten() for p in network.parameters()]) for network in (first, second, other)]
    assert weights[0].equal(weights[1])
    assert not weights[0].equal(weights[2])


@pytest.mark.parametrize("shape", [(32, 32), (48, 48), (20, 70), (256, 256)])
def test_latents_of_any_size_have_one_length(shape: tuple[int, int]) -> None:
    network = DenoisingAutoencoder(3, 4).eval()
    images = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert network.encode(images).shape == (2, 64)
        assert network(images).shape == (2, 3, 32, 32)
        torch.testing.assert_close(network.encode(images)[1:], network.encode(images[1:]), rtol=0, atol=1e-6)


def test_an_autoencoder_survives_its_file(tmp_path: Path) -> None:
    network = DenoisingAutoencoder(3, 4).eval()
    path = tmp_path / "autoencoder.st"
    save_autoencoder(network, path, {"seed": 3})
    loaded = load_autoencoder(path)
    assert loaded.card["provenance"] == {"seed": 3}
    assert not loaded.training
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert loaded(images).equal(network(images))
    with pytest.raises(InputError, match=r"autoencoder\.st is a file of kind 'autoencoder', not 'strata'"):
        Strata.load(path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InputError, match=r"autoencoder\.st is damaged"):
        load_autoencoder(path)


def test_an_interrupted_training_ends_as_an_uninterrupted_one(patches: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    images, path = patches[0][:40], tmp_path / "autoencoder.checkpoint"

    def stop(epoch: int, _: float) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    whole = train_autoencoder(images, width=4, epochs=3, batch_size=8)
    with pytest.raises(KeyboardInterrupt):
        train_autoencoder(images, width=4, epochs=3, batch_size=8, checkpoint=path, on_epoch=stop)
    continued = train_autoencoder(images, width=4, epochs=3, batch_size=8, checkpoint=path)
    ours, theirs = whole.state_dict(), continued.state_dict()
    assert all(value.equal(theirs[name]) for name, value in ours.items())
    with pytest.raises(UsageError, match=r"checkpoint is the checkpoint of another training \(noise: 0.15, not 0.2\)"):
        train_autoencoder(images, width=4, epochs=3, batch_size=8, checkpoint=path, noise=0.2)
    with pytest.raises(UsageError, match=r"of another training \(data: "):
        train_autoencoder(images.flip(0), width=4, epochs=3, batch_size=8, checkpoint=path)
