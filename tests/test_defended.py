"""A classifier behind the layer: logits of T(x), and under the identity the classifier's gradient at T(x)."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from quasinat.defended import Defended
from quasinat.errors import UsageError
from quasinat.layer import SparseTransformationLayer
from quasinat.networks import vgg
from quasinat.sparse_coding import Dictionary, Identity, project_filters


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
