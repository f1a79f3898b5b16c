"""RobustBench's fields, and its rules tried on modules of which it is known which they break."""

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from layers import images_of, universal
from quasinat import Defended, Identity, Implicit
from quasinat.attacks import Expectation
from quasinat.defences import (
    D3,
    ActivationPruning,
    CropEnsemble,
    GaussianFilter,
    Jpeg,
    RegionVote,
    TotalVariation,
    learn_patch_dictionary,
)
from quasinat.errors import UsageError
from quasinat.export import fixed
from quasinat.interop import Chunked, benchmark
from quasinat.interop.robustbench_rules import forward_passes, reasons
from quasinat.networks import vgg

SIDE, CLASSES, ENOUGH = 32, 4, 10_000
SOLVES = "it solves an optimisation problem at inference, which the leaderboard leaves out"
BLIND = "no gradient comes back to its input, or zero, for 3 of 3 images"
DRAWS = "its forward pass draws at random: two passes differ where no seed holds the draws"
STRAIGHT = "its gradient is a straight-through estimate: AutoAttack finds less than there is"
BEFORE = "it transforms its input first: such defences are to be attacked adaptively"


@pytest.fixture
def images() -> Tensor:
    return images_of(3, 3, SIDE, SIDE)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 5, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 7 * 7, CLASSES)).eval()


class Detached(nn.Module):
    """A network through which no gradient comes back, and says nothing of it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.detach()) + 0 * images.mean((1, 2, 3))[:, None]


class Noisy(Detached):
    """Noise on the image, held by no seed."""

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images + 0.01 * torch.randn_like(images))


def test_what_is_against_a_module_is_found_however_deep_it_lies(images: Tensor, network: nn.Module) -> None:
    layer, jpeg = universal(), Defended(Jpeg(), network).with_adjoint(Identity())
    patches = learn_patch_dictionary(images, patch=4, size=8)
    modules: dict[str, tuple[nn.Module, list[str]]] = {
        "a network": (network, []),
        "in chunks": (Chunked(network, 2), []),
        "the mean of one that is not random": (Expectation(network, samples=2), []),
        "the layer": (Defended(layer, network).with_adjoint(Implicit()), [SOLVES]),
        "the layer, straight through": (Defended(layer, network).with_adjoint(Identity()), [SOLVES, STRAIGHT]),
        "the layer in chunks": (Chunked(Defended(layer, network).with_adjoint(Implicit()), 2), [SOLVES]),
        "the layer without a gradient": (Defended(layer, network), [SOLVES, BLIND]),
        "the exported layer": (Defended(fixed(layer, 2, image_size=SIDE), network), [SOLVES, BLIND]),
        "JPEG": (jpeg, [STRAIGHT, BEFORE]),
        "the mean of JPEG": (Expectation(jpeg, samples=2), [STRAIGHT, BEFORE]),
        "JPEG in chunks": (Chunked(jpeg, 2), [STRAIGHT, BEFORE]),
        "JPEG in a sequence": (nn.Sequential(Jpeg(), network), [BLIND, BEFORE]),
        "a filter": (Defended(GaussianFilter(), network), [BEFORE]),
        "8 bits": (Defended(nn.Identity(), network, eight_bit=True), [STRAIGHT, BEFORE]),
        "TVM": (Defended(TotalVariation(), network).with_adjoint(Identity()), [SOLVES, DRAWS, STRAIGHT]),
        "D3": (Defended(D3(patches), network).with_adjoint(Identity()), [SOLVES, STRAIGHT]),
        "crops": (Chunked(Defended(CropEnsemble(crops=2, fraction=0.8), network), 2), [DRAWS, BEFORE]),
        "pruned": (ActivationPruning(network), [DRAWS]),
        "the mean of pruned": (Expectation(ActivationPruning(network), samples=2), [DRAWS]),
        "noise": (Noisy(network), [DRAWS]),
        "votes": (RegionVote(network, radius=0.3, votes=9).eval(), [BLIND, DRAWS]),
        "cut off": (Detached(network), [BLIND]),
        "a thermometer": (vgg("vgg-small", classes=CLASSES, encoding="thermometer").eval(), [STRAIGHT]),
    }
    state = torch.random.get_rng_state()
    assert {name: reasons(module, images, ENOUGH) for name, (module, _) in modules.items()} == {
        name: expected for name, (_, expected) in modules.items()
    }
    assert torch.random.get_rng_state().equal(state)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_too_few_images_are_named(images: Tensor, network: nn.Module) -> None:
    assert reasons(network, images, ENOUGH - 1) == ["9999 test images, not 10,000"]


def test_one_image_without_a_gradient_is_not_against_it(images: Tensor) -> None:
    """In general not zero, the rule says: of a rectifier that a dark image does not reach."""
    bright = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 1), nn.ReLU(), nn.Linear(1, CLASSES))
    with torch.no_grad():
        bright[1].weight.fill_(1)  # type: ignore[operator]
        bright[1].bias.fill_(-1)  # type: ignore[operator]
    dark = 0 * images[:1]
    assert reasons(bright, torch.cat([dark, images]), ENOUGH) == []
    assert reasons(bright, torch.cat([dark, dark, images[:1]]), ENOUGH) == [
        "no gradient comes back to its input, or zero, for 2 of 3 images"
    ]


def test_forward_passes_are_counted(images: Tensor, network: nn.Module) -> None:
    crops = Defended(CropEnsemble(crops=5), network)
    modules = {1: network, 5: crops, 15: Expectation(crops, samples=3), 7: RegionVote(network, votes=7)}
    assert {forward_passes(module, images): module for module in modules.values()} == modules
    assert forward_passes(Chunked(Expectation(ActivationPruning(network), samples=4), 2), images) == 4


FIELDS = {
    "link", "name", "authors", "additional_data", "number_forward_passes", "dataset", "venue", "architecture", "eps",
    "clean_acc", "reported", "autoattack_acc", "unreliable",
}  # fmt: skip
"""Of RobustBench's `model_info/cifar10/L2/Amini2024MeanSparse_S-WRN-70-16.json`, but for the optional `footnote`."""


@pytest.fixture
def given(network: nn.Module, images: Tensor) -> dict[str, Any]:
    pytest.importorskip("pyautoattack")
    with torch.no_grad():
        labels = network(images).argmax(1)
    return {"model": network, "images": images, "labels": labels, "name": "ours"}


def test_an_evaluation_has_robustbenchs_fields_and_says_why_it_is_none(given: dict[str, Any]) -> None:
    found = benchmark(**given, architecture="VGG", eps=8 / 255)
    json.dumps(found)
    ours = {"threat_model", "n", "clean_interval", "autoattack_interval", "leaderboard_eligible", "why_not"}
    assert found.keys() == FIELDS | ours
    assert (found["clean_acc"], found["eps"], found["threat_model"], found["n"]) == ("100.00", "8/255", "Linf", 3)
    assert 0 <= float(found["autoattack_acc"]) <= 100
    assert found["reported"] == found["autoattack_acc"]
    assert found["autoattack_interval"][0] <= float(found["autoattack_acc"]) / 100 <= found["autoattack_interval"][1]
    assert found["number_forward_passes"] == 1
    assert found["leaderboard_eligible"] is False
    assert found["why_not"] == ["3 test images, not 10,000"]
    with pytest.raises(UsageError, match="unknown threat 'Linff'; did you mean 'Linf'"):
        benchmark(**given, threat="Linff")


def test_what_only_the_authors_know_is_theirs_to_say(given: dict[str, Any]) -> None:
    said = {
        "link": "https://example.org", "authors": "A, B", "venue": "CVPR 2019", "additional_data": True,
        "number_forward_passes": 3, "reported": "58", "external": "50.5", "footnote": "a remark",
    }  # fmt: skip
    found = benchmark(**given, **said, threat="L2", eps=0.5)  # type: ignore[arg-type]
    assert said.items() <= found.items()
    assert (found["eps"], found["threat_model"]) == ("0.5", "L2")
