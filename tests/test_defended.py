"""A classifier behind the layer: logits of T(x), and under the identity the classifier's gradient at T(x)."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quasinat.defended import Defended, EightBit, StraightThrough
from quasinat.errors import UsageError
from quasinat.layer import SparseTransformationLayer
from quasinat.networks import vgg
from quasinat.sparse_coding import Adjoint, Dictionary, Identity, Implicit, Unrolled, project_filters
from sparse_coding.unchecked import unchecked


@pytest.fixture
def defended(generator: torch.Generator) -> Defended:
    filters = project_filters(torch.randn(6, 3, 5, 5, generator=generator), "joint")
    layer = SparseTransformationLayer(None, [Dictionary(filters, "joint", 0.1)], 0.1)
    return Defended(layer, vgg("vgg-small", classes=4).eval()).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, 16, 18, generator=torch.Generator().manual_seed(1))


def test_logits_are_the_classifiers_at_the_projection(defended: Defended, images: Tensor) -> None:
    with torch.no_grad():
        assert defended(images).equal(defended.classifier(defended.transform.project(images)))


def test_the_identity_gives_the_classifiers_gradient_at_the_projection(defended: Defended, images: Tensor) -> None:
    labels = torch.tensor([0, 3, 1])
    watched = images.clone().requires_grad_()
    loss = F.cross_entropy(defended.with_adjoint(Identity())(watched), labels)
    (gradient,) = torch.autograd.grad(loss, watched)
    projected = defended.transform.project(images).requires_grad_()
    (expected,) = torch.autograd.grad(F.cross_entropy(defended.classifier(projected), labels), projected)
    assert gradient.equal(expected)
    assert gradient.abs().max() > 0


def test_naming_a_gradient_changes_neither_logits_nor_the_module(defended: Defended, images: Tensor) -> None:
    named = defended.with_adjoint(Identity())
    with torch.no_grad():
        assert named(images).equal(defended(images))
    assert named.classifier is defended.classifier
    with pytest.raises(UsageError, match="no gradient is named"):
        defended(images.requires_grad_())


class Median(nn.Module):
    """A transformation that is no layer: the median of each pixel and its neighbours in the row."""

    def forward(self, images: Tensor) -> Tensor:
        return images.unfold(3, 3, 1).median(-1).values.repeat_interleave(2, 3)[..., : images.shape[3]]


class Hard(nn.Module):
    """A transformation without a derivative."""

    def forward(self, images: Tensor) -> Tensor:
        return (images > 0.5).to(images)


@pytest.mark.parametrize("make", [Median, Hard, nn.Identity])
def test_any_transformation_has_the_identity_as_its_gradient(
    make: Callable[[], nn.Module], defended: Defended, images: Tensor
) -> None:
    plain = Defended(make(), defended.classifier).eval()
    model = plain.with_adjoint(Identity())
    assert isinstance(model.transform, StraightThrough)
    with torch.no_grad():
        assert model(images).equal(plain(images))
        assert plain(images).equal(defended.classifier(plain.transform(images)))
    labels, watched = torch.tensor([0, 3, 1]), images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(watched), labels), watched)
    shown = plain.transform(images).requires_grad_()
    (expected,) = torch.autograd.grad(F.cross_entropy(defended.classifier(shown), labels), shown)
    assert gradient.equal(expected)
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("adjoint", [Implicit(), Unrolled()])
def test_only_the_layer_has_the_gradients_of_sparse_coding(adjoint: Adjoint, defended: Defended) -> None:
    kind = type(adjoint).__name__
    with pytest.raises(UsageError, match=f"Median has no gradient of the kind {kind}; name Identity"):
        Defended(Median(), defended.classifier).with_adjoint(adjoint)
    assert isinstance(defended.with_adjoint(adjoint).transform, SparseTransformationLayer)


def test_the_clipping_reaches_the_layer_and_a_misspelt_one_is_refused(defended: Defended) -> None:
    assert defended.with_adjoint(Implicit(), clipping="straight-through").transform.clipping == "straight-through"
    assert defended.with_adjoint(Implicit()).transform.clipping == "exact"
    with unchecked(), pytest.raises(UsageError, match="unknown clipping 'straight'; did you mean 'straight-through'"):
        defended.with_adjoint(Implicit(), clipping="straight")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_eight_bits_are_the_nearest_of_256_levels(dtype: torch.dtype, generator: torch.Generator) -> None:
    images = torch.rand(2, 3, 9, 11, generator=generator, dtype=dtype)
    images[0, 0, 0, :3] = torch.tensor([0.0, 1.0, 0.5 / 255 - 1e-5], dtype=dtype)
    watched = images.clone().requires_grad_()
    rounded = EightBit()(watched)
    levels = torch.arange(256, dtype=dtype) / 255
    expected = levels[(images[..., None] - levels).abs().argmin(-1)]
    assert rounded.detach().equal(expected)
    assert rounded[0, 0, 0, :3].tolist() == [0.0, 1.0, 0.0]
    assert EightBit()(expected).equal(expected)
    weights = torch.randn(images.shape, generator=generator, dtype=dtype)
    (gradient,) = torch.autograd.grad((rounded * weights).sum(), watched)
    assert gradient.equal(weights)


def test_eight_bits_in_front_of_the_layer(defended: Defended, images: Tensor) -> None:
    named = defended.with_adjoint(Implicit(), clipping="straight-through")
    model = Defended(defended.transform, defended.classifier, eight_bit=True).eval()
    model = model.with_adjoint(Implicit(), clipping="straight-through")
    images = images[:1, :, :10, :10]
    rounded = (images * 255).round() / 255
    with torch.no_grad():
        assert model(images).equal(defended(rounded))
        assert not model(images).equal(defended(images))
    gradients = []
    for module, start in ((model, images), (named, rounded)):
        watched = start.clone().requires_grad_()
        gradients.append(torch.autograd.grad(module(watched)[:, 0].sum(), watched)[0])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-7)
