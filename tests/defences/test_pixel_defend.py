"""PixelDefend against a loop with a full pass for every pixel, and against every level of the box."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from quasinat.defences.pixel_defend import PixelDefend, _greedy, pixel_defend
from quasinat.defences.pixelcnn_learning import learn_pixelcnn, load_pixelcnn, save_pixelcnn
from quasinat.defended import Defended
from quasinat.errors import InputError, UsageError
from quasinat.networks import vgg
from quasinat.networks.logistic_mixture import conditional_log_probabilities, mixture_from
from quasinat.networks.pixelcnn import PixelCNN
from quasinat.sparse_coding import Identity


def blank(channels: int, blocks: int = 4) -> PixelCNN:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return PixelCNN(channels, width=8, blocks=blocks, mixtures=3).double().eval()


def scene(channels: int, count: int = 3, height: int = 32, width: int = 33, seed: int = 1) -> Tensor:
    """Smooth images with noise of 20 levels, 8 bits deep, some pixels at both ends of the range."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, channels, 4, 4, generator=generator, dtype=torch.float64)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    noisy = 1.2 * smooth - 0.1 + 0.04 * torch.randn(smooth.shape, generator=generator, dtype=torch.float64)
    return (255 * noisy.clamp(0, 1)).round() / 255


@pytest.fixture(scope="module")
def trained() -> PixelCNN:
    """A network that has seen a few smooth images."""
    return learn_pixelcnn(scene(3, 32, 16, 16, seed=5).float(), width=8, blocks=4, mixtures=3, epochs=2).double()


@torch.no_grad()
def slow(images: Tensor, model: PixelCNN, reach: int) -> Tensor:
    """Algorithm 1 with a pass over the whole image for every pixel, and every level of the box tried by itself."""
    levels = (255 * images).round()
    chosen = levels.clone()
    for row in range(images.shape[2]):
        for column in range(images.shape[3]):
            mixture = mixture_from(model(chosen / 255).permute(0, 2, 3, 1)[:, row, column], model.channels)
            for channel in range(model.channels):
                table = conditional_log_probabilities(mixture, channel, chosen[:, :channel, row, column])
                for image in range(len(images)):
                    middle = int(levels[image, channel, row, column])
                    box = range(max(0, middle - reach), min(255, middle + reach) + 1)
                    best = max(box, key=lambda level, line=table[image]: float(line[level]))
                    chosen[image, channel, row, column] = best
    return chosen


@pytest.mark.parametrize("channels", [1, 3])
def test_the_cached_decoder_chooses_what_a_full_pass_for_every_pixel_chooses(channels: int) -> None:
    model, images = blank(channels), scene(channels, 2, 7, 9)
    expected = slow(images, model, 16)
    with torch.no_grad():
        assert _greedy((255 * images).round(), model, 16).equal(expected)
    assert not expected.equal((255 * images).round())


def test_so_it_does_after_training(trained: PixelCNN) -> None:
    images = scene(3, 2, 8, 7)
    with torch.no_grad():
        assert _greedy((255 * images).round(), trained, 16).equal(slow(images, trained, 16))


@pytest.mark.parametrize("radius", [0.0, 3 / 255, 16 / 255])
def test_it_stays_in_its_box_and_never_lowers_the_likelihood(trained: PixelCNN, radius: float) -> None:
    images = torch.cat([scene(3), torch.zeros(1, 3, 32, 33).double(), torch.ones(1, 3, 32, 33).double()])
    found = pixel_defend(images, trained, radius=radius)
    assert float((found - images).abs().max()) <= radius + 1e-12
    assert float((255 * found - (255 * found).round()).abs().max()) < 1e-9
    assert ((found >= 0) & (found <= 1)).all()
    with torch.no_grad():
        before, after = trained.log_likelihood(images), trained.log_likelihood(found)
    assert (after >= before).all()
    if radius:
        assert (after[:3] > before[:3]).all()
    else:
        assert found.equal(images)


def test_where_greedy_choices_end_lower_the_image_stays_as_it_was() -> None:
    model, images = blank(3), scene(3, 8)
    with torch.no_grad():
        levels = (255 * images).round()
        greedy = _greedy(levels, model, 16)
        lower = model.log_likelihood(greedy / 255) <= model.log_likelihood(images)
    found = pixel_defend(images, model)
    for i in range(8):
        assert found[i].equal((levels if lower[i] else greedy)[i] / 255)


def test_an_image_fares_alike_alone_and_in_its_batch_and_types_are_kept(trained: PixelCNN) -> None:
    images, module = scene(3), PixelDefend(trained)
    together = module(images)
    assert module(images[1:2])[0].equal(together[1])
    assert together.dtype == torch.float64
    assert module(images[:0]).shape == (0, 3, 32, 33)
    single = PixelDefend(blank(1).float())
    assert single(scene(1).float()).dtype == torch.float32
    assert module(images + 0.3 / 255 * (1 - images)).equal(module((255 * images + 0.3 * (1 - images)).round() / 255))


def test_the_identity_is_its_gradient_by_name(trained: PixelCNN) -> None:
    defended = Defended(PixelDefend(trained.float()), vgg("vgg-small", classes=3).eval())
    images = scene(3).float().requires_grad_()
    with pytest.raises(UsageError, match="no gradient is named for PixelDefend"):
        defended(images)
    defended.with_adjoint(Identity())(images).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().max() > 0
    trained.double()


def test_what_cannot_be_is_refused(trained: PixelCNN) -> None:
    with pytest.raises(InputError, match="1 channels and the PixelCNN was made for 3"):
        pixel_defend(scene(1), trained)
    with pytest.raises(UsageError, match=r"the radius is -0\.1"):
        PixelDefend(trained, radius=-0.1)


def test_training_raises_the_likelihood_of_other_images_like_these(trained: PixelCNN) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        untrained = PixelCNN(3, width=8, blocks=4, mixtures=3).double().eval()
    others = scene(3, 8, 16, 16, seed=6)
    with torch.no_grad():
        assert float(trained.log_likelihood(others).mean()) > float(untrained.log_likelihood(others).mean())


def test_an_interrupted_training_ends_as_one_that_was_not(tmp_path: Path) -> None:
    images = scene(1, 20, 8, 8).float()
    train = partial(learn_pixelcnn, images, width=4, blocks=2, mixtures=2, epochs=2)
    losses: list[float] = []
    whole = train(on_epoch=lambda epoch, loss: losses.append(loss))

    def stop(epoch: int, loss: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(checkpoint=tmp_path / "c", on_epoch=stop)
    resumed = train(checkpoint=tmp_path / "c")
    for name, value in whole.state_dict().items():
        assert value.equal(resumed.state_dict()[name]), name
    with pytest.raises(UsageError, match="another training"):
        train(checkpoint=tmp_path / "c", seed=1)
    with torch.no_grad():
        assert losses[0] > float(-whole.log_likelihood(images).mean()) / 64


def test_a_file_gives_the_network_back_and_a_damaged_one_is_refused(trained: PixelCNN, tmp_path: Path) -> None:
    model, path = blank(3).float(), tmp_path / "pixelcnn"
    save_pixelcnn(model, path, {"seed": 0})
    again = load_pixelcnn(path)
    images = scene(3).float()
    with torch.no_grad():
        assert again(images).equal(model(images))
    assert again.card["provenance"] == {"seed": 0}
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match="pixelcnn"):
        load_pixelcnn(path)
