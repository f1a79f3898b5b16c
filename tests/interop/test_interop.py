"""Other people's tools on a defended module: their attacks run, find errors and see a gradient."""

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from layers import images_of, stratified, universal
from quasinat import Defended, Identity, Implicit
from quasinat.defended import StraightThrough
from quasinat.errors import InputError, UsageError
from quasinat.interop import Chunked, Projection
from quasinat.layer import SparseTransformationLayer

pytestmark = [
    pytest.mark.filterwarnings("ignore:Please import .gaussian_filter.:DeprecationWarning"),  # Foolbox
]
SIDE, CLASSES = 20, 4
SHAPE = (3, SIDE, SIDE)


@pytest.fixture
def images() -> Tensor:
    return images_of(3, 6)


@pytest.fixture
def defended(images: Tensor) -> Defended:
    """A layer before a network to which the classes are about even, so that it can be fooled."""
    torch.manual_seed(0)
    head = nn.Sequential(nn.Conv2d(3, 6, 5, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 8 * 8, CLASSES))
    made = Defended(universal(), head).eval()
    with torch.no_grad():
        head[3].bias -= made(images).mean(0)
    return made


@pytest.fixture
def labels(defended: Defended, images: Tensor) -> Tensor:
    """What the module says, so that every error is an attack's."""
    with torch.no_grad():
        return defended(images).argmax(1)


def test_chunks_are_the_whole(defended: Defended, images: Tensor) -> None:
    named = defended.with_adjoint(Implicit())
    found: list[tuple[Tensor, Tensor]] = []
    for module in (named, Chunked(named, 1), Chunked(named, 4), Chunked(named, 99)):
        leaf = images.clone().requires_grad_()
        logits = module(leaf)
        found.append((logits.detach(), torch.autograd.grad(logits[:, 0].sum(), leaf)[0]))
    for logits, gradient in found[1:]:
        torch.testing.assert_close(logits, found[0][0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(gradient, found[0][1], rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError, match="chunks of 0 images; give 1 or more"):
        Chunked(named, 0)


def one_hot(labels: Tensor) -> Any:
    return np.eye(CLASSES, dtype=np.float32)[labels.numpy()]


def art_attacks(classifier: Any) -> dict[str, Any]:
    from art.attacks import evasion

    return {
        "fgsm": evasion.FastGradientMethod(classifier, eps=0.2),
        "pgd": evasion.ProjectedGradientDescentPyTorch(classifier, eps=0.2, eps_step=0.05, max_iter=5, verbose=False),
        "deepfool": evasion.DeepFool(classifier, max_iter=30, nb_grads=CLASSES, verbose=False),
        "cw": evasion.CarliniL2Method(
            classifier, learning_rate=0.1, initial_const=100.0, max_iter=8, binary_search_steps=1, verbose=False
        ),
        "auto-pgd": evasion.AutoProjectedGradientDescent(
            classifier, eps=0.2, eps_step=0.1, max_iter=5, nb_random_init=1, verbose=False
        ),
    }


@pytest.mark.parametrize("name", ["fgsm", "pgd", "deepfool", "cw", "auto-pgd"])
@pytest.mark.parametrize("adjoint", [Identity(), Implicit()], ids=["identity", "implicit"])
def test_arts_attacks_run_on_the_classifier(
    name: str, adjoint: Any, defended: Defended, images: Tensor, labels: Tensor
) -> None:
    pytest.importorskip("art")
    from quasinat.interop.art import as_art_classifier

    classifier = as_art_classifier(defended.with_adjoint(adjoint), shape=SHAPE, classes=CLASSES, chunk=4)
    gradient = classifier.loss_gradient(images.numpy(), one_hot(labels))
    leaf = images.clone().requires_grad_()
    loss = nn.functional.cross_entropy(defended.with_adjoint(adjoint)(leaf), labels)
    torch.testing.assert_close(torch.from_numpy(gradient), torch.autograd.grad(loss, leaf)[0], rtol=1e-3, atol=1e-5)
    made = art_attacks(classifier)[name].generate(images.numpy(), labels.numpy())
    assert made.shape == images.shape
    assert made.min() >= 0
    assert made.max() <= 1
    fooled = classifier.predict(made).argmax(1) != labels.numpy()
    assert fooled.any()


def test_without_a_gradient_no_classifier_is_made(defended: Defended) -> None:
    pytest.importorskip("art")
    from quasinat.interop.art import as_art_classifier

    class Blind(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return defended(images.detach())

    class Flat(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return (0 * images).flatten(1)[:, :CLASSES]

    with pytest.raises(UsageError, match="no gradient is named"):
        as_art_classifier(defended, shape=SHAPE, classes=CLASSES)
    for blind in (Blind(), Flat()):
        with pytest.raises(UsageError, match=r"no gradient comes back .*with_adjoint\(quasinat.Implicit"):
            as_art_classifier(blind, shape=SHAPE, classes=CLASSES)
    with pytest.raises(UsageError, match=r"makes \(2, 4\) of two images; give a module of 7 logits"):
        as_art_classifier(defended.with_adjoint(Identity()), shape=SHAPE, classes=7)


def test_the_layer_is_one_of_arts_defences(defended: Defended, images: Tensor, labels: Tensor) -> None:
    pytest.importorskip("art")
    from art.attacks.evasion import FastGradientMethod
    from art.estimators.classification import PyTorchClassifier

    from quasinat.interop.art import ArtPreprocessor

    before = ArtPreprocessor(defended.transform, chunk=4)
    assert before.apply_predict
    assert not before.apply_fit
    made, given = before(images.numpy(), labels.numpy())
    torch.testing.assert_close(torch.from_numpy(made), defended.transform(images))
    assert np.array_equal(given, labels.numpy())
    classifier = PyTorchClassifier(
        defended.classifier,
        nn.CrossEntropyLoss(),
        SHAPE,
        CLASSES,
        clip_values=(0.0, 1.0),
        preprocessing_defences=before,
        device_type="cpu",
    )
    expected = defended(images).detach()
    torch.testing.assert_close(torch.from_numpy(classifier.predict(images.numpy())), expected, rtol=1e-4, atol=1e-5)
    gradient = torch.from_numpy(classifier.loss_gradient(images.numpy(), one_hot(labels)))
    leaf = images.clone().requires_grad_()
    straight = Defended(StraightThrough(defended.transform), defended.classifier)
    loss = nn.functional.cross_entropy(straight(leaf), labels)
    torch.testing.assert_close(gradient, torch.autograd.grad(loss, leaf)[0], rtol=1e-3, atol=1e-5)
    assert gradient.abs().max() > 0
    fooled = classifier.predict(FastGradientMethod(classifier, eps=0.2).generate(images.numpy(), labels.numpy()))
    assert (fooled.argmax(1) != labels.numpy()).any()


def test_foolbox_takes_the_module_as_it_is(defended: Defended, images: Tensor, labels: Tensor) -> None:
    foolbox = pytest.importorskip("foolbox")
    model = foolbox.PyTorchModel(defended.with_adjoint(Implicit()).requires_grad_(False).eval(), bounds=(0, 1))
    _, made, fooled = foolbox.attacks.LinfPGD(steps=5)(model, images, labels, epsilons=0.2)
    assert fooled.any()
    assert (made - images).abs().max() <= 0.2 + 1e-6


@pytest.mark.parametrize("channels", [1, 3])
def test_a_projection_gives_back_what_it_was_given(channels: int) -> None:
    layer = stratified(channels)
    projection = Projection(layer)
    image = images_of(channels, 1)[0]
    expected = layer(image[None])[0]
    assert projection(image).equal(expected)
    assert projection(image[None]).equal(expected[None])
    bytes_ = (255 * image).round().to(torch.uint8)
    made = projection(bytes_)
    assert made.dtype == torch.uint8
    assert made.equal((255 * layer(bytes_[None].float() / 255)[0]).round().to(torch.uint8))
    picture = Image.fromarray(bytes_[0].numpy() if channels == 1 else bytes_.permute(1, 2, 0).numpy())
    shown = projection(picture)
    assert (shown.mode, shown.size) == (picture.mode, picture.size)
    assert np.array_equal(np.asarray(shown), made[0].numpy() if channels == 1 else made.permute(1, 2, 0).numpy())
    again = pickle.loads(pickle.dumps(projection))
    assert again(image).equal(expected)
    assert repr(projection) == f"Projection({SparseTransformationLayer.__name__})"


@pytest.mark.parametrize("channels", [1, 3])
def test_a_projection_lays_transparency_over_white(channels: int) -> None:
    projection = Projection(universal(channels))
    colours = np.random.default_rng(0).integers(0, 256, (20, 20, 4), dtype=np.uint8)
    share = colours[..., 3:] / 255
    over = np.round(share * colours[..., :3] + (1 - share) * 255).astype(np.uint8)
    white, given = (projection(Image.fromarray(pixels)) for pixels in (over, colours))
    assert np.abs(np.asarray(white).astype(int) - np.asarray(given).astype(int)).max() <= 2  # of rounding before it


def test_a_projection_takes_no_more_than_eight_bits() -> None:
    deep = Image.fromarray(np.full((20, 20), 40_000, dtype=np.uint16))
    assert deep.mode == "I;16"
    with pytest.raises(InputError, match="I;16, more than 8 bits"):
        Projection(universal(1))(deep)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (np.zeros((3, 20, 20)), "ndarray is no image"),
        (torch.zeros(20, 20), r"a tensor of shape \(20, 20\) is no image"),
    ],
)
def test_a_projection_says_what_is_no_image(wrong: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Projection(universal())(wrong)
