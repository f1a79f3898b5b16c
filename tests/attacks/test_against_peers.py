"""The same attacks in Foolbox and ART, on the same trained network, the same images and the same budgets.

Where the definitions coincide the images do, step for step, in float64 (in float32 a rounding that switches one ReLU is
soon a different path). Where they differ, in float32: no fewer errors, and no longer perturbations.
"""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quasinat.attacks import L2, Budget, Linf, bim, carlini_wagner, deepfool, fgsm, pgd
from quasinat.data import photographs
from quasinat.networks import vgg
from quasinat.training import train_classifier

from .conftest import decisions
from .peers import Art, Foolbox, Peer

pytestmark = [
    pytest.mark.filterwarnings("ignore:Please import .gaussian_filter.:DeprecationWarning"),  # Foolbox
]
SIDE, COUNT, FEW = 16, 30, 12
BALLS: list[Budget] = [Linf(0.01), L2(0.2)]
STEPS = (1, 3, 6)
NAMES = ("foolbox", "art")
MakePeer = Callable[[str, nn.Module], Peer]


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, Tensor, Tensor]:
    """A network trained on patches of photographs, and those of its test patches that it gets right."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    data = photographs(2 * SIDE, colour=True, train_per_class=40, test_per_class=8)
    train, test = F.avg_pool2d(data.train_images, 2), F.avg_pool2d(data.test_images, 2)
    network = train_classifier(
        vgg("vgg-small", classes=10), train, data.train_labels, epochs=10, batch_size=32, augment=False
    )
    right = decisions(network, test) == data.test_labels
    torch.set_num_threads(threads)
    assert right.sum() >= COUNT
    return network.requires_grad_(False), test[right][:COUNT], data.test_labels[right][:COUNT]


@pytest.fixture
def peer_of(monkeypatch: pytest.MonkeyPatch, trained: tuple[nn.Module, Tensor, Tensor]) -> MakePeer:
    """The peer of a name, attacking a network in the type of its weights; skips where it is not installed."""

    def make(name: str, network: nn.Module) -> Peer:
        pytest.importorskip(name)
        if name == "foolbox":
            return Foolbox(network)
        return Art(network, trained[1].to(next(network.parameters())), monkeypatch)

    return make


@pytest.fixture
def double(trained: tuple[nn.Module, Tensor, Tensor]) -> tuple[nn.Module, Tensor, Tensor]:
    """The same in float64, with a few of the images."""
    network, images, labels = trained
    return copy.deepcopy(network).double(), images[:FEW].double(), labels[:FEW]


def worst_of(network: nn.Module, iterates: list[Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
    """What BIM and PGD promise: of each image the first iterate that errs with the largest loss, else the largest loss.

    And whether any iterate errs.
    """
    with torch.no_grad():
        logits = torch.stack([network(images) for images in iterates])
    losses = torch.stack([F.cross_entropy(each, labels, reduction="none") for each in logits])
    wrong = logits.argmax(2) != labels
    hardest = (losses + 1e3 * wrong).argmax(0)
    return torch.stack(iterates)[hardest, torch.arange(len(labels))], wrong.any(0)


def found(network: nn.Module, images: Tensor, labels: Tensor, perturbed: Tensor) -> Tensor:
    """Where the network errs on what a peer returned; a black image or the clean one is its word for a failure."""
    moved = (perturbed != images).flatten(1).any(1) & (perturbed != 0).flatten(1).any(1)
    return moved & (decisions(network, perturbed) != labels)


def norms_where_both(images: Tensor, ours: Tensor, theirs: Tensor, both: Tensor) -> tuple[float, float]:
    """The mean L2 norms of two sets of perturbations, over the images where both attacks succeed."""
    first, second = (L2(1.0).measure(images, each)[both].mean().item() for each in (ours, theirs))
    return first, second


@pytest.mark.parametrize("budget", BALLS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_fgsm_is_the_peers(name: str, budget: Budget, double: tuple, peer_of: MakePeer) -> None:
    network, images, labels = double
    ours = fgsm(network, images, labels, budget=budget)
    theirs = peer_of(name, network).fast_gradient(images, labels, budget)
    torch.testing.assert_close(ours.images, theirs, rtol=0, atol=1e-9)
    assert ours.success.any()


@pytest.mark.parametrize("budget", BALLS, ids=str)
@pytest.mark.parametrize("attack", [bim, pgd], ids=["bim", "pgd"])
@pytest.mark.parametrize("name", NAMES)
def test_bim_and_pgd_take_the_peers_steps(
    name: str, attack: Callable, budget: Budget, double: tuple, peer_of: MakePeer
) -> None:
    network, images, labels = double
    if name == "art" and isinstance(budget, L2):  # it clips before it projects on the ball, we as Foolbox do after:
        images = 0.1 + 0.8 * images  # the same where nothing is clipped
    peer, step_size, start = peer_of(name, network), budget.size / 4, None
    if attack is pgd:  # its start, as documented: one draw for all images
        noise = budget.unit_noise(images.shape[1:], torch.Generator().manual_seed(3))
        start = (images + noise * budget.size).clamp(0, 1)
    options = {"seed": 3} if attack is pgd else {}
    iterates = [peer.iterate(images, labels, budget, steps + 1, step_size, start) for steps in range(max(STEPS))]
    for steps in STEPS:
        ours = attack(network, images, labels, budget=budget, steps=steps, step_size=step_size, **options)
        theirs, success = worst_of(network, iterates[:steps], labels)
        torch.testing.assert_close(ours.images, theirs, rtol=0, atol=1e-9)
        assert torch.equal(ours.success, success)
    assert 0 < ours.success.sum() < FEW


@pytest.mark.parametrize("budget", BALLS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_bim_finds_no_less_in_float32(name: str, budget: Budget, trained: tuple, peer_of: MakePeer) -> None:
    network, images, labels = trained
    ours = bim(network, images, labels, budget=budget, steps=20, step_size=budget.size / 4)
    theirs = peer_of(name, network).iterate(images, labels, budget, 20, budget.size / 4, None)
    assert ours.success.sum() >= (decisions(network, theirs) != labels).sum() > 0


@pytest.mark.parametrize("steps", [1, 2, 3, 50])
def test_deepfool_takes_foolboxs_steps(steps: int, double: tuple, peer_of: MakePeer) -> None:
    network, images, labels = double
    ours = deepfool(network, images, labels, steps=steps)
    theirs = peer_of("foolbox", network).deepfool(images, labels, steps, 0.02)
    torch.testing.assert_close(ours.images, theirs, rtol=0, atol=1e-6)  # they add 1e-8 to each norm
    assert ours.success.all() == (steps == 50)


@pytest.mark.parametrize(("name", "overshoot"), [("foolbox", 0.02), ("art", 0.02), ("art", 1e-6)])
def test_deepfool_is_as_short(name: str, overshoot: float, trained: tuple, peer_of: MakePeer) -> None:
    """ART's default overshoot is 1e-6; ours stays 0.02, the publication's."""
    network, images, labels = trained
    ours = deepfool(network, images, labels)
    theirs = peer_of(name, network).deepfool(images, labels, 10, overshoot)
    success = decisions(network, theirs) != labels
    assert ours.success.sum() >= success.sum() > COUNT // 2
    own, other = norms_where_both(images, ours.images, theirs, ours.success & success)
    assert own <= 1.02 * other


@pytest.mark.parametrize(("steps", "search_steps", "constant"), [(20, 1, 8.0), (20, 4, 1.0)])
def test_carlini_wagner_takes_foolboxs_steps(
    steps: int, search_steps: int, constant: float, double: tuple, peer_of: MakePeer
) -> None:
    network, images, labels = double
    ours = carlini_wagner(network, images, labels, steps=steps, search_steps=search_steps, initial_constant=constant)
    theirs = peer_of("foolbox", network).carlini_wagner(images, labels, steps, search_steps, constant)
    success = found(network, images, labels, theirs)
    assert torch.equal(ours.success, success)
    assert FEW // 2 < success.sum() < FEW
    # They measure from the image as it comes back out of tanh space, up to 5e-7 away, which Adam's steps enlarge.
    torch.testing.assert_close(ours.images[success], theirs[success], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "count"), [("foolbox", COUNT), ("art", 6)])
def test_carlini_wagner_is_as_short(name: str, count: int, trained: tuple, peer_of: MakePeer) -> None:
    """ART takes ten times as long; 50 steps are too few for Adam to leave the darkest image, in Foolbox as here."""
    network, images, labels = trained[0], trained[1][:count], trained[2][:count]
    ours = carlini_wagner(network, images, labels, steps=100, search_steps=2, initial_constant=2.0)
    theirs = peer_of(name, network).carlini_wagner(images, labels, 100, 2, 2.0)
    success = found(network, images, labels, theirs)
    assert ours.success.sum() >= success.sum() > count // 2
    own, other = norms_where_both(images, ours.images, theirs, ours.success & success)
    assert own <= 1.02 * other
