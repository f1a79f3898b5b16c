"""The gradient checks tell a true gradient from a wrong one, a dead model from a live one, a random one too."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from layers import images_of, stratified, universal
from quasinat.defended import Defended
from quasinat.errors import UsageError
from quasinat.evaluation import gradient_checks
from quasinat.evaluation.gradient_checks import (
    EXACT,
    GradientAgreement,
    gradient_agreement,
    gradient_norms,
    repeat_difference,
)
from quasinat.layer import SparseTransformationLayer
from quasinat.sparse_coding import Adjoint, Identity, Implicit, Unrolled

COUNT = 3
LABELS = torch.tensor([0, 1, 2])


class Curved(nn.Module):
    """A smooth network of grey images, 16 pixels wide."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(256, 12), nn.Tanh(), nn.Linear(12, 3))
        generator = torch.Generator().manual_seed(4)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(4 * images - 2)


class Constant(nn.Module):
    """Logits that do not depend on the image, though autograd finds a way to it."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.tensor([1.0, 0.0, -1.0]).expand(len(images), 3) + 0 * images.flatten(1)[:, :1]


class Noisy(nn.Module):
    """Another model's logits with fresh noise of a given share of their spread."""

    def __init__(self, model: nn.Module, size: float) -> None:
        super().__init__()
        self.model, self.size = model, size

    def forward(self, images: Tensor) -> Tensor:
        logits = self.model(images)
        return logits + self.size * torch.randn_like(logits) * (logits.amax() - logits.amin())


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return images_of(1, COUNT, 16, 16)


def agreement(adjoint: Adjoint, images: Tensor, layer: SparseTransformationLayer | None = None) -> GradientAgreement:
    defended = Defended(layer or universal(1), Curved()).eval().with_adjoint(adjoint)
    return gradient_agreement(defended, images, LABELS[: len(images)], iterations=150)


def test_the_true_gradient_agrees_in_every_stratum(images: Tensor) -> None:
    layer = stratified(1)
    assert len(layer.stratum(images[:2]).unique()) == 2  # each image has another dictionary
    found = agreement(Implicit(), images[:2], layer)
    assert float(found.differences.max()) < 1e-6
    assert float(found.unrolled.min()) > 0.999
    assert float(found.deployed.min()) > 0.999
    assert found.differences.shape == found.unrolled.shape == found.deployed.shape == (2,)


@pytest.mark.parametrize("adjoint", [Identity(), Unrolled(3)], ids=str)
def test_another_gradient_of_the_deployed_layer_is_seen(adjoint: Adjoint, images: Tensor) -> None:
    found = agreement(adjoint, images[:1])
    assert float(found.deployed.max()) < 0.95
    assert float(found.differences.max()) < 1e-6  # the exact one is still compared with finite differences
    assert float(found.unrolled.min()) > 0.999


def test_an_implicit_gradient_that_is_wrong_is_seen(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = replace(EXACT, kkt=0.0, fallback=Unrolled(3))  # no solution is optimal enough: the fallback serves
    monkeypatch.setattr(gradient_checks, "EXACT", wrong)
    found = agreement(Implicit(), images[:1])
    assert float(found.differences.min()) > 1e-2
    assert float(found.unrolled.max()) < 0.95
    assert float(found.deployed.max()) < 0.95


def test_the_clip_belongs_to_the_derivative(images: Tensor) -> None:
    contrast = (8 * images[:1] - 3.5).clamp(0, 1)
    defended = Defended(universal(1), Curved()).eval()
    with torch.no_grad():
        seen = defended.transform(contrast)
    assert 0.05 < float(((seen == 0) | (seen == 1)).float().mean()) < 0.9
    exact, straight = (
        gradient_agreement(defended.with_adjoint(Implicit(), clipping=how), contrast, LABELS[:1], iterations=150)
        for how in ("exact", "straight-through")
    )
    assert float(exact.differences.max()) < 1e-3
    assert float(straight.differences.max()) > 1e-2  # it is not the derivative


def test_nothing_of_the_model_is_changed(images: Tensor) -> None:
    defended = Defended(universal(1), Curved()).eval().with_adjoint(Implicit())
    before = {name: value.clone() for name, value in defended.state_dict().items()}
    solver = defended.transform.solver
    gradient_agreement(defended, images[:1], LABELS[:1], iterations=5, directions=1)
    after = defended.state_dict()
    assert all(value.dtype == after[name].dtype and value.equal(after[name]) for name, value in before.items())
    assert defended.transform.solver == solver
    assert all(parameter.grad is None for parameter in defended.parameters())


def test_there_must_be_a_layer_with_a_named_gradient(images: Tensor) -> None:
    bare = Defended(universal(1), Curved())
    for defended in (bare, Defended(nn.Identity(), Curved()).with_adjoint(Identity())):
        with pytest.raises(UsageError, match=r"no layer with a named gradient.*with_adjoint\(Implicit\(\)\)"):
            gradient_agreement(defended, images, LABELS)


@pytest.mark.parametrize("loss", ["cross-entropy", "margin"])
def test_norms_are_those_of_the_losses_gradient(loss: str, images: Tensor) -> None:
    assert gradient_norms(Constant(), images, LABELS, loss=loss).tolist() == [0.0] * COUNT
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(256, 3, generator=generator)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(256, 3, bias=False))
    with torch.no_grad():
        linear[1].weight.copy_(weights.T)
        logits = linear(images)
    if loss == "margin":
        rivals = logits.scatter(1, LABELS[:, None], -torch.inf).argmax(1)
        expected = (weights[:, rivals] - weights[:, LABELS]).norm(dim=0)
    else:
        slopes = logits.softmax(1) - torch.eye(3)[LABELS]
        expected = (slopes @ weights.T).norm(dim=1)
    found = gradient_norms(linear, images, LABELS, loss=loss)
    assert found.allclose(expected, rtol=1e-4)
    assert all(parameter.grad is None for parameter in linear.parameters())


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_randomness_is_seen_at_any_scale_of_the_logits(scale: float, images: Tensor) -> None:
    class Scaled(nn.Module):
        def forward(self, batch: Tensor) -> Tensor:
            return scale * curved(batch)

    curved = Curved().eval()
    assert repeat_difference(Scaled(), images) < 1e-5
    assert repeat_difference(Noisy(Scaled(), 0.2), images) > 1e-2


def test_a_model_of_the_whole_batch_is_not_one_of_its_images(images: Tensor) -> None:
    class Centred(nn.Module):
        def forward(self, batch: Tensor) -> Tensor:
            return Curved()(batch - batch.mean(0, keepdim=True))

    assert repeat_difference(Centred(), images) > 1e-2
    assert repeat_difference(Constant(), images) == 0.0
    assert repeat_difference(Curved(), images[:0]) == 0.0
