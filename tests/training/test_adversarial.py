"""Adversarial training: its worth on a problem with a closed form, what it shares with plain training, its seeds."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from quasinat.attacks import Linf, pgd
from quasinat.errors import InputError, UsageError
from quasinat.networks import VGG, vgg
from quasinat.training import train_adversarially, train_classifier

EPSILON = 0.15
RADIUS = 4 / 255


def one_strong_many_weak(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images whose first pixel tells the class by far, but for one in ten wrongly; the others barely, together well.

    A step of EPSILON turns what the weak pixels say around and leaves the first as it is (as in Tsipras et al. 2019,
    section 2.1).
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (count,), generator=generator)
    sign = (2.0 * labels - 1)[:, None]
    lies = torch.rand(count, 1, generator=generator) < 0.1
    strong = 0.5 + 0.3 * torch.where(lies, -sign, sign)
    weak = 0.5 + 0.08 * sign + 0.1 * torch.randn(count, 15, generator=generator)
    return torch.cat([strong, weak], 1).clamp(0.16, 0.84).view(count, 1, 4, 4), labels


def linear() -> nn.Module:
    """Logits that are linear in the pixels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 2))


def robust_accuracy(network: nn.Module, images: Tensor, labels: Tensor, epsilon: float) -> float:
    """Exact: the margin of a linear classifier less the most that a change of up to epsilon a pixel can take from it.

    No pixel is nearer than epsilon to 0 or 1.
    """
    assert epsilon <= float(images.min()) <= float(images.max()) <= 1 - epsilon
    with torch.no_grad():
        logits, weight = network(images), network[1].weight  # type: ignore[index]
    sign = 2.0 * labels - 1
    margins = (logits[:, 1] - logits[:, 0]) * sign
    return float((margins > epsilon * (weight[1] - weight[0]).abs().sum()).double().mean())


def attacked(network: nn.Module, images: Tensor, labels: Tensor, *, seed: int, radius: float = RADIUS) -> Tensor:
    return pgd(network, images, labels, budget=Linf(radius), steps=2, seed=seed).images


def test_it_is_robust_where_plain_training_is_not() -> None:
    images, labels = one_strong_many_weak(400, 0)
    test_images, test_labels = one_strong_many_weak(2000, 1)
    options: dict[str, Any] = {"epochs": 10, "batch_size": 50, "learning_rate": 1.0, "weight_decay": 0.0}
    plain = train_classifier(linear(), images, labels, augment=False, **options)
    perturb = partial(attacked, radius=EPSILON)
    hardened = train_adversarially(linear(), images, labels, perturb=perturb, augment=False, **options)
    assert robust_accuracy(plain, test_images, test_labels, 0.0) > 0.95
    assert robust_accuracy(plain, test_images, test_labels, EPSILON) < 0.3
    assert robust_accuracy(hardened, test_images, test_labels, EPSILON) > 0.85


def images_and_labels(count: int = 24) -> tuple[Tensor, Tensor]:
    return torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(0)), torch.arange(count) % 2


OPTIONS: dict[str, Any] = {"epochs": 3, "batch_size": 8, "noise": 0.1, "label_smoothing": 0.1, "seed": 5}


def new() -> VGG:
    return vgg("vgg-small", classes=2, channels=1)


def same(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(value.equal(theirs[name]) for name, value in ours.items())


def test_with_nothing_perturbed_it_is_plain_training_to_the_bit() -> None:
    images, labels = images_and_labels()
    plain = train_classifier(new(), images, labels, **OPTIONS)
    assert same(train_adversarially(new(), images, labels, perturb=attacked, share=0.0, **OPTIONS), plain)
    assert not same(train_adversarially(new(), images, labels, perturb=attacked, share=0.5, **OPTIONS), plain)


def test_noise_changes_the_training_and_no_noise_draws_nothing() -> None:
    images, labels = images_and_labels()
    without = train_classifier(new(), images, labels, **OPTIONS | {"noise": 0.0})
    untold = {name: value for name, value in OPTIONS.items() if name != "noise"}
    assert same(without, train_classifier(new(), images, labels, **untold))
    assert not same(without, train_classifier(new(), images, labels, **OPTIONS))


@pytest.mark.parametrize("after", [1, 3])
def test_a_continued_training_ends_as_an_uninterrupted_one(after: int, tmp_path: Path) -> None:
    images, labels = images_and_labels()
    options: dict[str, Any] = OPTIONS | {"perturb": attacked, "share": 0.5}

    def stop(epoch: int, _: float) -> None:
        if epoch == after:
            raise KeyboardInterrupt

    whole = train_adversarially(new(), images, labels, **options)
    kept = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        train_adversarially(new(), images, labels, **options, checkpoint=kept, on_epoch=stop)
    told: list[int] = []

    def tell(epoch: int, _: float) -> None:
        told.append(epoch)

    continued = train_adversarially(new(), images, labels, **options, checkpoint=kept, on_epoch=tell)
    assert same(continued, whole)
    assert told == [1, 2, 3]


def test_the_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    images, labels = images_and_labels()
    kept = tmp_path / "checkpoint"
    options: dict[str, Any] = OPTIONS | {"epochs": 1, "perturb": attacked, "checkpoint": kept}
    train_adversarially(new(), images, labels, **options, fingerprint={"radius": 1})
    with pytest.raises(UsageError, match=r"perturbation: {'radius': 1}, not {'radius': 2}"):
        train_adversarially(new(), images, labels, **options, fingerprint={"radius": 2})
    with pytest.raises(UsageError, match=r"share: 1.0, not 0.5"):
        train_adversarially(new(), images, labels, **options, share=0.5, fingerprint={"radius": 1})
    with pytest.raises(UsageError, match=r"is the checkpoint of another training"):
        train_classifier(new(), images, labels, **OPTIONS | {"epochs": 1}, checkpoint=kept)


class Watching:
    """Perturbs by nothing, leaves gradients behind and notes what it was called with."""

    def __init__(self) -> None:
        self.seeds: list[int] = []
        self.counts: list[int] = []
        self.seen: list[Tensor] = []

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, *, seed: int) -> Tensor:
        assert not any(module.training for module in network.modules())
        assert all(parameter.grad is None for parameter in network.parameters())
        nn.functional.cross_entropy(network(images), labels).backward()
        self.seeds.append(seed)
        self.counts.append(len(images))
        self.seen.append(images.clone())
        return images


def test_what_a_perturbation_is_given_and_that_its_gradients_are_dropped() -> None:
    images, labels = images_and_labels(20)
    first, second, other = Watching(), Watching(), Watching()
    options: dict[str, Any] = {"epochs": 2, "batch_size": 8, "learning_rate": 0.01, "share": 0.5}
    network = train_adversarially(new(), images, labels, perturb=first, **options)
    train_adversarially(new(), images, labels, perturb=second, **options)
    train_adversarially(new(), images, labels, perturb=other, **options, seed=1)
    assert first.counts == [4, 4, 2] * 2
    assert len(set(first.seeds)) == 6
    assert first.seeds == second.seeds
    assert not set(first.seeds) & set(other.seeds)
    assert not any(module.training for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(parameter.requires_grad for parameter in network.parameters())

    def silent(network: nn.Module, images: Tensor, labels: Tensor, *, seed: int) -> Tensor:
        return images

    assert same(train_adversarially(new(), images, labels, perturb=silent, **options), network)


def test_the_perturbed_part_is_what_the_network_learns_from() -> None:
    """Images of which the perturbation leaves only a grey square, with noise-free labels, cannot be told apart."""
    images = torch.where((torch.arange(32) % 2 == 0)[:, None, None, None], 0.2, 0.8).expand(32, 1, 16, 16).contiguous()
    labels = torch.arange(32) % 2
    last: list[float] = []

    def grey(network: nn.Module, images: Tensor, labels: Tensor, *, seed: int) -> Tensor:
        return torch.full_like(images, 0.5)

    for share in (0.0, 1.0):
        train_adversarially(
            new(),
            images,
            labels,
            perturb=grey,
            share=share,
            epochs=4,
            batch_size=8,
            learning_rate=0.01,
            on_epoch=lambda epoch, loss: last.append(loss) if epoch == 4 else None,
        )
    plain, perturbed = last
    assert plain < 0.4
    assert perturbed > 0.69 - 0.02  # log 2: nothing can be known


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_outside_0_to_1_is_refused(share: float) -> None:
    images, labels = images_and_labels()
    with pytest.raises(UsageError, match=f"a share of {share} of each batch cannot be perturbed; give a number from 0"):
        train_adversarially(new(), images, labels, perturb=attacked, share=share)


def test_a_perturbation_of_another_shape_is_refused() -> None:
    images, labels = images_and_labels()

    def halved(network: nn.Module, images: Tensor, labels: Tensor, *, seed: int) -> Tensor:
        return images[:, :, ::2]

    with pytest.raises(InputError, match=r"returns images of shape \(8, 1, 8, 16\) for \(8, 1, 16, 16\); it must keep"):
        train_adversarially(new(), images, labels, perturb=halved, batch_size=8)


def _note(curve: list[float], _: int, loss: float) -> None:
    curve.append(loss)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_cuda_device_it_learns_the_same() -> None:
    """Images, labels and network on the device, draws on the CPU: the curve is the CPU's but for rounding."""
    images, labels = images_and_labels(64)
    curves: dict[str, list[float]] = {}
    for device in ("cpu", "cuda"):
        curve: list[float] = []
        network = train_adversarially(
            new().to(device),
            images.to(device),
            labels.to(device),
            perturb=attacked,
            share=0.5,
            noise=0.05,
            epochs=2,
            batch_size=16,
            learning_rate=1e-3,
            on_epoch=partial(_note, curve),
        )
        assert {value.device.type for value in network.state_dict().values()} == {device}
        curves[device] = curve
    torch.testing.assert_close(torch.tensor(curves["cuda"]), torch.tensor(curves["cpu"]), rtol=0.02, atol=0.0)
