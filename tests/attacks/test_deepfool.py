import pytest
import torch
from torch import Tensor

from quasinat.attacks import L2, Dissimilarity, deepfool

from .conftest import Linear, Perceptron, decisions


@pytest.mark.parametrize("classes", [2, 4, 12])
@pytest.mark.parametrize("overshoot", [0.0, 0.02])
def test_distances_on_a_linear_model_are_the_closed_form(classes: int, overshoot: float, images: Tensor) -> None:
    model = Linear(classes)
    result = deepfool(model, images, overshoot=overshoot, candidates=classes)
    assert result.success.all()
    found = L2(1.0).measure(images, result.images)
    assert torch.allclose(found, (1 + overshoot) * model.distances(images), rtol=0.01)


def test_without_labels_it_leaves_the_models_own_decisions(perceptron: Perceptron, images: Tensor) -> None:
    own = decisions(perceptron, images)
    assert torch.equal(deepfool(perceptron, images).images, deepfool(perceptron, images, own).images)
    assert deepfool(perceptron, images).success.all()


def test_an_image_that_is_wrong_already_stays(perceptron: Perceptron, images: Tensor, labels: Tensor) -> None:
    result = deepfool(perceptron, images, labels)
    assert torch.equal(result.images[-1], images[-1])
    assert result.queries[-1] == 2
    assert result.success.all()


def test_held_to_a_budget_below_and_above_the_distance(images: Tensor) -> None:
    model = Linear(4)
    relative = model.distances(images) / torch.linalg.vector_norm(images.flatten(1), dim=1)
    below, above = Dissimilarity(0.9 * relative.min().item()), Dissimilarity(1.1 * relative.max().item())
    for budget, reaches in ((below, False), (above, True)):
        result = deepfool(model, images, budget=budget)
        assert torch.allclose(budget.measure(images, result.images), torch.tensor(budget.size, dtype=torch.float64))
        assert result.success.tolist() == [reaches] * len(images)


def test_queries_are_what_the_model_saw(perceptron: Perceptron, images: Tensor) -> None:
    seen = 0

    def count(_: object, inputs: tuple[Tensor], __: object) -> None:
        nonlocal seen
        seen += len(inputs[0])

    own = decisions(perceptron, images)
    perceptron.register_forward_hook(count)
    result = deepfool(perceptron, images, own, candidates=3)
    steps = (result.queries - 2) // 4  # a step: two forward passes and two backward ones
    assert seen == int((2 + 2 * steps).sum())
