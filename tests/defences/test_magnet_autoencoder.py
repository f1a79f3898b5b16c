"""MagNet's autoencoders: their structure is the source's, they learn and denoise, go on, and survive their file."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quasinat.data import photographs
from quasinat.defences.magnet_autoencoder import PLANS, MagnetAutoencoder, learn_magnet, load_magnet, save_magnet
from quasinat.errors import InputError, UsageError

every_plan = pytest.mark.parametrize("plan", list(PLANS))


@pytest.fixture(scope="module")
def patches() -> tuple[Tensor, Tensor]:
    dataset = photographs(train_per_class=24, test_per_class=4)
    return dataset.train_images, dataset.test_images


def weights(network: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def written_out(plan: str, channels: int) -> nn.Sequential:
    """The source's networks as its paper tabulates them, layer by layer."""

    def conv(into: int, out: int) -> list[nn.Module]:
        return [nn.Conv2d(into, out, 3, padding=1), nn.Sigmoid()]

    if plan == "mnist-1":
        encoder = [*conv(channels, 3), nn.AvgPool2d(2), *conv(3, 3)]
        return nn.Sequential(*encoder, *conv(3, 3), nn.Upsample(scale_factor=2), *conv(3, 3), *conv(3, channels))
    return nn.Sequential(*conv(channels, 3), *conv(3, 3), *conv(3, channels))


@every_plan
@pytest.mark.parametrize("channels", [1, 3])
def test_the_structure_is_the_sources(plan: str, channels: int) -> None:
    network = MagnetAutoencoder(channels, plan)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(parameter.numel()))
    twin = written_out(plan, channels)
    for mine, theirs in zip(network.parameters(), twin.parameters(), strict=True):
        theirs.data.copy_(mine.data)
    images = torch.rand(2, channels, 28, 28, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(images), twin(images))
    assert [part.shape for part in network.activations(images)] == [
        part.shape for part in run_through(twin, images) if part is not images
    ]


def run_through(network: nn.Sequential, images: Tensor) -> list[Tensor]:
    """What each sigmoid gives."""
    outputs = []
    for layer in network:
        images = layer(images)
        if isinstance(layer, nn.Sigmoid):
            outputs.append(images)
    return outputs


@every_plan
@pytest.mark.parametrize("size", [(33, 47), (32, 35), (39, 32), (1, 1)])
def test_odd_sizes_are_padded_by_repetition_and_cropped(plan: str, size: tuple[int, int]) -> None:
    height, width = size
    network = MagnetAutoencoder(3, plan).double()
    images = torch.rand(2, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    out = network(images)
    assert out.shape == images.shape
    if plan == "mnist-1":
        rows = torch.tensor([*range(height), *[height - 1] * (height % 2)])
        columns = torch.tensor([*range(width), *[width - 1] * (width % 2)])
        images = images[:, :, rows][..., columns]
    torch.testing.assert_close(out, network(images)[:, :, :height, :width], rtol=0, atol=1e-14)


@every_plan
def test_any_batch_any_precision(plan: str) -> None:
    network = MagnetAutoencoder(1, plan)
    images = torch.rand(3, 1, 33, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        together = network(images)
        for i in range(3):
            torch.testing.assert_close(network(images[i : i + 1]), together[i : i + 1], rtol=0, atol=1e-6)
        assert network(images[:0]).shape == (0, 1, 33, 32)
        fine = network(images.double())
    assert fine.dtype == torch.float64
    torch.testing.assert_close(fine.float(), together, rtol=0, atol=1e-6)
    assert together.min() > 0
    assert together.max() < 1


def test_a_new_network_starts_as_the_sources_do() -> None:
    torch.manual_seed(0)
    for convolution in MagnetAutoencoder(3, "mnist-1").convolutions:
        assert isinstance(convolution, nn.Conv2d)
        bound = (6 / (convolution.in_channels * 9 + convolution.out_channels * 9)) ** 0.5  # Glorot & Bengio, Eq. (16)
        largest = float(convolution.weight.detach().abs().max())
        assert 0.8 * bound < largest <= bound
        assert convolution.bias is not None
        assert not convolution.bias.any()


def test_it_learns_and_denoises(patches: tuple[Tensor, Tensor]) -> None:
    losses: list[float] = []
    small, clean = (images[:, :, 8:24, 8:24] for images in patches)
    network = learn_magnet(
        small[:64],
        noise=0.2,
        epochs=60,
        batch_size=8,
        learning_rate=0.1,
        on_epoch=lambda _, loss: losses.append(loss),
    )
    assert len(losses) == 60
    assert losses[-1] < 0.3 * losses[0]
    assert not network.training
    noise = 0.2 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(9))
    noisy = (clean + noise).clamp(0, 1)
    untrained = learn_magnet(small, noise=0.2, epochs=0)
    with torch.no_grad():
        denoised = F.mse_loss(network(noisy), clean)
        print(losses[0], losses[-1], denoised, F.mse_loss(noisy, clean), F.mse_loss(untrained(noisy), clean))
        assert denoised < 0.4 * F.mse_loss(noisy, clean)
        assert denoised < 0.3 * F.mse_loss(untrained(noisy), clean)


def test_the_loss_is_the_mean_squared_error_and_the_activations_weight() -> None:
    """With all values known: one image twice, no noise, no step taken before the loss is reported."""
    images = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(3)).repeat(2, 1, 1, 1)
    for regularisation in (0.0, 1e-3):
        losses: dict[int, float] = {}
        learn_magnet(images, noise=0.0, regularisation=regularisation, epochs=1, on_epoch=losses.__setitem__)
        start = learn_magnet(images, noise=0.0, epochs=0)
        with torch.no_grad():
            parts = run_through(twin_of(start), images[:1])
        squares = sum(float(part.square().sum()) for part in parts)
        expected = float((parts[-1] - images[:1]).square().mean()) + regularisation * squares
        assert losses == {1: pytest.approx(expected, rel=1e-5)}


def twin_of(network: MagnetAutoencoder) -> nn.Sequential:
    twin = written_out(network.plan, network.channels)
    for mine, theirs in zip(network.parameters(), twin.parameters(), strict=True):
        theirs.data.copy_(mine.data)
    return twin


def test_the_seed_decides_and_the_global_generator_is_left_alone(patches: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, second, other = (weights(learn_magnet(patches[0][:40], epochs=1, seed=seed)) for seed in (0, 0, 1))
    assert torch.random.get_rng_state().equal(before)
    assert first.equal(second)
    assert not first.equal(other)


@every_plan
def test_an_interrupted_learning_ends_as_an_uninterrupted_one(
    plan: str, patches: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    images, path = patches[0][:40], tmp_path / "magnet.checkpoint"

    def stop(epoch: int, _: float) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    whole = learn_magnet(images, plan=plan, epochs=3, batch_size=8)
    with pytest.raises(KeyboardInterrupt):
        learn_magnet(images, plan=plan, epochs=3, batch_size=8, checkpoint=path, on_epoch=stop)
    continued = learn_magnet(images, plan=plan, epochs=3, batch_size=8, checkpoint=path)
    assert weights(continued).equal(weights(whole))
    with pytest.raises(UsageError, match=r"of another training \(noise: 0\.\d+, not 0\.2\)"):
        learn_magnet(images, plan=plan, epochs=3, batch_size=8, checkpoint=path, noise=0.2)
    with pytest.raises(UsageError, match=r"of another training \(data: "):
        learn_magnet(images.flip(0), plan=plan, epochs=3, batch_size=8, checkpoint=path)


@every_plan
def test_an_autoencoder_survives_its_file(plan: str, tmp_path: Path) -> None:
    network = MagnetAutoencoder(1, plan).eval()
    path = tmp_path / "magnet.safetensors"
    save_magnet(network, path, {"seed": 3, "noise": PLANS[plan].noise})
    loaded = load_magnet(path)
    assert loaded.card["provenance"] == {"seed": 3, "noise": PLANS[plan].noise}
    assert loaded.card["settings"] == {"channels": 1, "plan": plan}
    assert not loaded.training
    assert weights(loaded).equal(weights(network))
    images = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert loaded(images).equal(network(images))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InputError, match=r"magnet\.safetensors is damaged"):
        load_magnet(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    from quasinat.artefact import write_artefact

    path = tmp_path / "x.safetensors"
    tensors = MagnetAutoencoder(3).state_dict()
    good = {"channels": 3, "plan": "cifar"}
    for settings, message in [
        ({**good, "plan": "vgg"}, "unknown plan 'vgg'"),
        ({**good, "channels": 0}, "no usable setting 'channels'"),
        ({**good, "channels": 1}, "holds convolutions"),
        ({**good, "plan": "mnist-1"}, "lacks the tensor convolutions"),
        (None, "no usable setting"),
    ]:
        write_artefact(path, "magnet", tensors, {"settings": settings, "provenance": {}})
        with pytest.raises(InputError, match=message):
            load_magnet(path)
    write_artefact(path, "autoencoder", tensors, {"settings": good, "provenance": {}})
    with pytest.raises(InputError, match="kind 'autoencoder', not 'magnet'"):
        load_magnet(path)
    with pytest.raises(InputError, match=r"nothing\.safetensors"):
        load_magnet(tmp_path / "nothing.safetensors")


def test_what_makes_no_sense_is_refused(patches: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(UsageError, match="did you mean 'mnist-1'"):
        MagnetAutoencoder(1, "mnist1")
    with pytest.raises(UsageError, match="did you mean 'cifar'"):
        learn_magnet(patches[0], plan="cifar10")
    with pytest.raises(UsageError, match="noise is -1"):
        learn_magnet(patches[0], noise=-1.0)
    with pytest.raises(UsageError, match="regularisation is -1"):
        learn_magnet(patches[0], regularisation=-1.0)
    with pytest.raises(InputError, match=r"image 0 leaves \[0, 1\]"):
        learn_magnet(patches[0] * 255)
    with pytest.raises(InputError, match="3 channels, not 1"):
        MagnetAutoencoder(3)(torch.rand(1, 1, 32, 32))
