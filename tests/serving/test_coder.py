"""What a batch gets is what each image gets alone, to the bit, from the layer and the networks themselves."""

import pytest
import torch
from torch import nn

from layers import stratified, universal
from quasinat.defended import Defended
from quasinat.errors import UsageError
from quasinat.networks import vgg
from quasinat.serving.classes import class_names
from quasinat.serving.coder import Asked, Coder, total_variation
from quasinat.sparse_coding import ADMM, Auto, Solver
from serving.service import CLASSES, coder, eight_bits


@pytest.mark.parametrize(
    ("channels", "solver"),
    [(1, Auto()), (3, Auto()), (1, Auto(max_steps=1, tolerance=0.1)), (3, ADMM(max_steps=25))],
    ids=["grey", "colour", "handed on", "admm"],
)
def test_a_batch_is_its_images_alone_to_the_bit(channels: int, solver: Solver) -> None:
    networks = [vgg("vgg-small", classes=CLASSES, channels=channels, seed=seed) for seed in range(2)]
    layer = stratified(channels, solver=solver)
    made = Coder(layer, *networks)
    asked = eight_bits(4, channels=channels)
    images = asked.float() / 255
    outcomes = made.code([Asked(image, True) for image in asked])
    assert len({outcome.stratum for outcome in outcomes}) > 1
    for image, outcome in zip(images[:, None], outcomes, strict=True):
        assert outcome.projected.equal(layer.project(image)[0])
        assert outcome.stratum == int(layer.stratum(image))
        assert outcome.after.equal(Defended(layer, networks[0])(image)[0].detach().double().softmax(0))
        assert outcome.before.equal(networks[1](image)[0].detach().double().softmax(0))
        assert outcome.disagreement == pytest.approx(0.5 * float((outcome.before - outcome.after).abs().sum()))
    assert torch.stack([outcome.projected for outcome in outcomes]).equal(layer.project(images))


def test_filters_refined_for_a_batch_are_refined_for_each_image() -> None:
    layer = stratified(refine=1, refine_over="batch")
    asked = eight_bits(4)
    outcomes = Coder(layer).code([Asked(image, False) for image in asked])
    for image, outcome in zip(asked[:, None].float() / 255, outcomes, strict=True):
        assert outcome.projected.equal(layer.project(image)[0])


def test_only_what_is_asked_for_is_classified() -> None:
    first, second = coder().code([Asked(image, bool(place)) for place, image in enumerate(eight_bits(2))])
    assert first.before is None
    assert first.after is None
    assert second.before.sum() == pytest.approx(1)
    with pytest.raises(ValueError, match="not classified"):
        _ = first.disagreement


def test_one_network_stands_for_both() -> None:
    network = vgg("vgg-small", classes=CLASSES)
    image = eight_bits(1)
    (outcome,) = Coder(universal(), network).code([Asked(image[0], True)])
    assert outcome.before.equal(network(image.float() / 255)[0].detach().double().softmax(0))


def test_the_disagreement_is_the_largest_difference_of_any_event() -> None:
    first, second = torch.rand(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).softmax(1)
    events = [[(event >> label) & 1 for label in range(5)] for event in range(32)]
    differences = [float((torch.tensor(event) * (first - second)).sum().abs()) for event in events]
    assert total_variation(first, second) == pytest.approx(max(differences))
    sure = torch.eye(5, dtype=torch.float64)
    assert total_variation(sure[0], sure[1]) == 1
    assert total_variation(first, first) == 0


def test_the_least_side_is_that_of_filters_and_poolings() -> None:
    made = coder()
    poolings = sum(isinstance(part, nn.MaxPool2d) for part in made.model.modules())
    assert (made.least_side(False), made.least_side(True)) == (5, max(5, 2**poolings))
    deep = Coder(universal(), vgg("vgg16", classes=2))
    assert deep.least_side(True) == 32
    deep.code([Asked(eight_bits(1, 32, 32)[0], True)])
    with pytest.raises(RuntimeError):
        deep.code([Asked(eight_bits(1, 31, 31)[0], True)])


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ((universal(1), vgg("vgg-small", classes=2)), "--model is for images of 3 channels, the layer for 1"),
        ((universal(), None, vgg("vgg-small", classes=2)), "name a --model too"),
        ((universal(), vgg("vgg-small", classes=2), vgg("vgg-small", classes=3)), "have other classes"),
        ((universal(2),), "the layer is for images of 2 channels"),
    ],
)
def test_what_does_not_fit_is_refused_at_the_start(arguments: tuple, part: str) -> None:
    with pytest.raises(UsageError, match=part):
        Coder(*arguments)


def test_class_names_come_from_the_cards() -> None:
    first, second = vgg("vgg-small", classes=2), vgg("vgg-small", classes=2)
    assert class_names(None, None) is None
    assert class_names(first, None) is None
    first.card = {"provenance": {"classes": ["cat", "dog"]}}
    assert class_names(first, None) == ["cat", "dog"]
    assert class_names(second, first) == ["cat", "dog"]
    second.card = {"provenance": {"classes": ["dog", "cat"]}}
    with pytest.raises(UsageError, match="have other classes"):
        class_names(first, second)
    second.card = {"provenance": {"classes": ["dog"]}}
    assert class_names(second) is None
