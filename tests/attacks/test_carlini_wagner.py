import pytest
import torch
from torch import Tensor

from quasinat.attacks import L2, carlini_wagner, deepfool

from .conftest import Linear, Perceptron, decisions


@pytest.mark.parametrize("classes", [2, 4])
def test_distances_on_a_linear_model_are_near_the_closed_form(classes: int, images: Tensor) -> None:
    model = Linear(classes)
    result = carlini_wagner(model, images, decisions(model, images), steps=80, initial_constant=0.1)
    assert result.success.all()
    found, truth = L2(1.0).measure(images, result.images), model.distances(images)
    assert (found >= truth * (1 - 1e-9)).all()
    assert torch.allclose(found, truth, rtol=0.05)


def test_it_is_about_as_close_as_deepfool(perceptron: Perceptron, images: Tensor) -> None:
    labels = decisions(perceptron, images)
    near = L2(1.0).measure(images, carlini_wagner(perceptron, images, labels, steps=80, initial_constant=0.1).images)
    other = L2(1.0).measure(images, deepfool(perceptron, images, labels).images)
    assert near.mean() <= 1.02 * other.mean()


def test_confidence_is_a_margin_of_the_logits(perceptron: Perceptron, images: Tensor) -> None:
    labels = decisions(perceptron, images)
    result = carlini_wagner(perceptron, images, labels, steps=60, initial_constant=1.0, confidence=0.5)
    with torch.no_grad():
        logits = perceptron.eval()(result.images)
    own = logits.gather(1, labels[:, None])[:, 0]
    others = logits.scatter(1, labels[:, None], -torch.inf).max(1).values
    assert result.success.all()
    assert (others - own >= 0.5).all()


def test_a_failure_is_the_last_iterate_and_not_the_clean_image(perceptron: Perceptron, images: Tensor) -> None:
    labels = decisions(perceptron, images)
    result = carlini_wagner(perceptron, images, labels, steps=5, search_steps=1, initial_constant=0.01)
    assert not result.success.all()
    moved = L2(1.0).measure(images, result.images)
    assert (moved[~result.success] > 1e-6).all()


def test_black_and_white_pixels_serve(perceptron: Perceptron, images: Tensor) -> None:
    sharp = (images > 0.5).double()
    result = carlini_wagner(perceptron, sharp, decisions(perceptron, sharp), steps=50, initial_constant=1.0)
    assert result.images.isfinite().all()


def test_an_image_that_is_wrong_already_stays(perceptron: Perceptron, images: Tensor, labels: Tensor) -> None:
    result = carlini_wagner(perceptron, images, labels, steps=10, search_steps=2)
    assert torch.equal(result.images[-1], images[-1])
    assert result.success[-1]
    assert result.queries.tolist() == [2 + 40] * 6 + [2]
