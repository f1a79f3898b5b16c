import pytest
import torch
from torch import Tensor

from quasinat.attacks import Budget, Linf, bim, fgsm

from .conftest import BUDGETS, Linear, Perceptron


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_it_ends_no_weaker_than_one_step(budget: Budget, perceptron: Perceptron, images: Tensor) -> None:
    labels = perceptron.eval()(images).argmax(1)
    cross_entropy = torch.nn.CrossEntropyLoss()
    with torch.no_grad():
        one = cross_entropy(perceptron(fgsm(perceptron, images, labels, budget=budget).images), labels)
        many = cross_entropy(perceptron(bim(perceptron, images, labels, budget=budget).images), labels)
    assert many >= one


def test_two_small_steps_on_a_linear_model_add_up(images: Tensor) -> None:
    model = Linear(2)
    labels = torch.zeros(len(images), dtype=torch.int64)
    moved = bim(model, images, labels, budget=Linf(0.1), steps=2, step_size=0.01).images
    expected = 0.02 * (model.weight[1] - model.weight[0]).sign().reshape(images.shape[1:])
    assert torch.allclose(moved - images, expected.expand_as(images))


def test_it_costs_a_forward_and_a_backward_a_step_and_two_checks(perceptron: Perceptron, images: Tensor) -> None:
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    perceptron.register_forward_hook(count)
    labels = torch.zeros(len(images), dtype=torch.int64)
    result = bim(perceptron, images, labels, budget=Linf(0.1), steps=5)
    assert calls == 5 + 2
    assert (result.queries == calls + 5).all()
