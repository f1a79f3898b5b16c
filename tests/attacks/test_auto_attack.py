import logging
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from quasinat.attacks import L2, Dissimilarity, Linf
from quasinat.attacks.auto_attack import auto_attack
from quasinat.errors import InputError, UsageError

from .conftest import SHAPE, Constant, Linear, Perceptron, decisions

package = pytest.importorskip("pyautoattack")


@pytest.fixture(autouse=True)
def traced() -> Iterator[None]:
    """Called by itself, the package takes away the interpreter's trace function, and with it the test coverage."""
    trace = sys.gettrace()
    yield
    sys.settrace(trace)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package with fewer iterations and queries, however it is called."""
    whole = package.AutoAttack.__init__

    def shortened(self: object, *args: object, **options: object) -> None:
        whole(self, *args, **options)
        for attack in (self.apgd, self.apgd_targeted):
            attack.n_iter, attack.n_iter_2, attack.eot_iter = 20, 4, min(2, attack.eot_iter)
            attack.n_restarts = min(2, attack.n_restarts)
        self.fab.n_iter, self.fab.n_restarts, self.square.n_queries = 5, 1, 30

    monkeypatch.setattr(package.AutoAttack, "__init__", shortened)


@pytest.fixture
def model() -> nn.Module:
    return Perceptron(dtype=torch.float32)


@pytest.fixture
def photos(model: nn.Module) -> Tensor:
    """A dozen images in single precision."""
    return 0.3 + 0.4 * torch.rand(12, *SHAPE, generator=torch.Generator().manual_seed(7))


@pytest.fixture
def truth(model: nn.Module, photos: Tensor) -> Tensor:
    """The model's own decisions, but for the last image, which it gets wrong."""
    labels = decisions(model, photos)
    labels[-1] = (labels[-1] + 1) % 5
    return labels


def directly(
    model: nn.Module, images: Tensor, labels: Tensor, norm: str, eps: float, seed: int, version: str, **options: object
) -> Tensor:
    """The package itself, with as many targets as five classes allow."""
    model.eval()
    with torch.random.fork_rng():
        ensemble = package.AutoAttack(model, norm=norm, eps=eps, seed=seed, version=version, **options)
        ensemble.apgd_targeted.n_target_classes = ensemble.fab.n_target_classes = 4
        if version == "custom":
            ensemble.apgd.n_restarts = 1
        found, _ = ensemble.run_standard_evaluation(images, labels, batch_size=5)
    for parameter in model.parameters():
        parameter.grad = None
    return found


@pytest.mark.parametrize("budget", [Linf(0.02), L2(0.1)], ids=str)
@pytest.mark.parametrize("version", ["standard", "plus", "rand"])
def test_it_is_the_package_called_directly(
    budget: Linf | L2, version: str, model: nn.Module, photos: Tensor, truth: Tensor
) -> None:
    result = auto_attack(model, photos, truth, budget=budget, version=version, seed=3, batch_size=5)
    expected = directly(model, photos, truth, type(budget).__name__, budget.size, 3, version)
    assert torch.allclose(result.images, expected, rtol=0, atol=1e-6)  # the last rounding, back into the ball
    assert torch.equal(result.success, decisions(model, expected) != truth)
    assert 1 < result.success.sum() < len(photos)
    assert torch.equal(result.images[~result.success], photos[~result.success])
    assert torch.equal(result.images[-1], photos[-1])
    assert (budget.measure(photos, result.images) <= budget.size * (1 + 1e-6)).all()
    assert ((result.images >= 0) & (result.images <= 1)).all()


def test_it_breaks_what_any_of_its_parts_breaks(model: nn.Module, photos: Tensor, truth: Tensor) -> None:
    whole = auto_attack(model, photos, truth, budget=Linf(0.02), seed=1, batch_size=5)
    for part in ("apgd-ce", "apgd-t", "fab-t", "square"):
        alone = directly(model, photos, truth, "Linf", 0.02, 1, "custom", attacks=[part])
        broken = decisions(model, alone) != truth
        assert 1 < broken.sum() <= whole.success.sum()
        assert part != "apgd-ce" or not (broken & ~whole.success).any()  # the first, with the same draws


def test_each_image_has_its_own_radius_under_a_dissimilarity(model: nn.Module, photos: Tensor, truth: Tensor) -> None:
    budget = Dissimilarity(0.03)
    result = auto_attack(model, photos[:4], truth[:4], budget=budget)
    assert (budget.measure(photos[:4], result.images) <= 0.03 * (1 + 1e-6)).all()
    for i in range(4):
        own = L2(budget.radii(photos[i : i + 1]).item())
        alone = auto_attack(model, photos[i : i + 1], truth[i : i + 1], budget=own)
        assert torch.allclose(alone.images[0], result.images[i], rtol=0, atol=1e-6)
        assert alone.queries[0] == result.queries[i]


def test_one_at_a_time_an_image_fares_as_alone(model: nn.Module, photos: Tensor, truth: Tensor) -> None:
    together = auto_attack(model, photos[:4], truth[:4], budget=Linf(0.02), batch_size=1)
    for i in range(4):
        alone = auto_attack(model, photos[i : i + 1], truth[i : i + 1], budget=Linf(0.02))
        assert torch.allclose(alone.images[0], together.images[i], rtol=0, atol=1e-6)


def test_nothing_is_left_behind(
    model: nn.Module,
    photos: Tensor,
    truth: Tensor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    model.layers[0].eval()
    next(iter(model.parameters())).requires_grad_(False)
    flags = [module.training for module in model.modules()]
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    before, generator = photos.clone(), torch.get_rng_state()

    def trace(*_: object) -> None:
        return None

    earlier = sys.gettrace()
    sys.settrace(trace)
    try:
        auto_attack(model, photos, truth, budget=Linf(0.01), version="plus")
        assert sys.gettrace() is trace
    finally:
        sys.settrace(earlier)
    assert [module.training for module in model.modules()] == flags
    assert [parameter.requires_grad for parameter in model.parameters()] == wanted
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.equal(photos, before)
    assert capfd.readouterr().out == ""
    assert os.listdir(tmp_path) == []  # noqa: PTH208


def test_queries_are_the_mean_of_what_the_model_saw(model: nn.Module, photos: Tensor, truth: Tensor) -> None:
    seen = 0

    def count(_: object, __: object, logits: Tensor) -> None:
        def back(gradient: Tensor) -> None:
            nonlocal seen
            seen += len(gradient)

        nonlocal seen
        seen += len(logits)
        if logits.requires_grad:
            logits.register_hook(back)

    model.register_forward_hook(count)
    result = auto_attack(model, photos, truth, budget=Linf(0.02), version="plus")
    assert result.queries.unique().tolist() == [math.ceil(seen / len(photos))]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_come_back_as_they_were(dtype: torch.dtype, photos: Tensor, truth: Tensor) -> None:
    images = photos.to(dtype)
    result = auto_attack(Perceptron(dtype=dtype), images, truth, budget=Linf(0.05))
    assert result.images.dtype == dtype
    assert torch.equal(result.images[-1], images[-1])
    assert result.success.any()


def test_budgets_at_the_ends(model: nn.Module, photos: Tensor, truth: Tensor) -> None:
    for kind in (Linf, L2, Dissimilarity):
        none = auto_attack(model, photos, truth, budget=kind(0.0))
        assert torch.equal(none.images, photos)
        assert none.success.tolist() == [False] * 11 + [True]
        assert auto_attack(model, photos[:3], truth[:3], budget=kind(math.inf)).success.all()
    assert len(auto_attack(model, photos[:0], truth[:0], budget=L2(0.1)).success) == 0


def test_what_the_package_suspects_is_logged(photos: Tensor, truth: Tensor, caplog: pytest.LogCaptureFixture) -> None:
    class Probabilities(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Perceptron(dtype=torch.float32)

        def forward(self, images: Tensor) -> Tensor:
            return self.inner(images).softmax(1)

    with caplog.at_level(logging.WARNING, "auto-attack"):
        auto_attack(Probabilities(), photos, truth, budget=Linf(0.02), version="rand")
    assert "probability distribution" in caplog.text
    assert "target classes" not in caplog.text


def test_what_cannot_be_done_is_refused(
    model: nn.Module, photos: Tensor, truth: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="did you mean 'standard'"):
        auto_attack(model, photos, truth, budget=Linf(0.1), version="standrad")
    with pytest.raises(UsageError, match="batch_size is 0"):
        auto_attack(model, photos, truth, budget=Linf(0.1), batch_size=0)
    with pytest.raises(InputError, match="needs 4 classes and the model has 3"):
        auto_attack(Linear(3, torch.float32), photos, truth * 0, budget=Linf(0.1))
    with pytest.raises(InputError, match="no gradient"):
        auto_attack(Constant([1.0, 0.0, 0.0, 0.0], attached=False), photos, truth * 0, budget=Linf(0.1))
    truth[7] = 5
    with pytest.raises(InputError, match="image 7 has a label beyond"):
        auto_attack(model, photos, truth, budget=Linf(0.1), batch_size=5)
    truth[7] = 0
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    with pytest.raises(UsageError, match="pip install quasinat\\[interop\\]"):
        auto_attack(model, photos, truth, budget=Linf(0.1))
