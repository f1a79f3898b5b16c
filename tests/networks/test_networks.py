"""Networks: shapes, seeds, normalisation inside, each image on its own."""

import pytest
import torch

from quasinat.errors import UsageError
from quasinat.networks import PLANS, Normalise, vgg, vgg16


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("channels", [1, 3])
def test_logits_of_any_size_each_image_on_its_own(plan: str, channels: int) -> None:
    network = vgg(plan, classes=7, channels=channels).eval()
    images = torch.rand(3, channels, 33, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = network(images)
        assert logits.shape == (3, 7)
        assert logits.std() > 0
        torch.testing.assert_close(network(images[1:2])[0], logits[1], rtol=1e-4, atol=1e-5)
        assert network.classifier(network.embed(images)).equal(logits)


def test_the_seed_decides_and_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(11)
    before = torch.random.get_rng_state()
    first, second, other = (vgg("vgg-small", classes=3, seed=seed) for seed in (0, 0, 1))
    assert torch.random.get_rng_state().equal(before)
    weights = [torch.cat([p.detach().flatten() for p in network.parameters()]) for network in (first, second, other)]
    assert weights[0].equal(weights[1])
    assert not weights[0].equal(weights[2])


def test_vgg16_has_the_papers_thirteen_convolutions() -> None:
    convolutions = [m for m in vgg16(10).features if isinstance(m, torch.nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(UsageError, match=r"unknown network 'vgg17'; .*vgg16"):
        vgg("vgg17", classes=2)


def test_normalise_brings_training_images_to_mean_0_and_deviation_1(generator: torch.Generator) -> None:
    images = torch.rand(20, 3, 9, 9, generator=generator) * torch.tensor([0.1, 0.5, 1.0]).view(3, 1, 1)
    images[:, 2] = 0.3  # without contrast: finite all the same
    normalise = Normalise(3)
    normalise.fit(images)
    output = normalise(images)
    torch.testing.assert_close(output.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-3)
    torch.testing.assert_close(output.std((0, 2, 3))[:2], torch.ones(2), rtol=1e-3, atol=0)
    assert output.isfinite().all()
    assert set(normalise.state_dict()) == {"mean", "deviation"}
