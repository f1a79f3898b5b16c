"""The trainings by name: which function of the library trains what network, with its options and their usual values."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from torch import nn

from quasinat.attacks import Budget, Linf
from quasinat.defences import train_on_fgsm, train_on_pgd
from quasinat.defences.adversarial_training import USUAL_BUDGET as FGSM_BUDGET
from quasinat.networks import VGG
from quasinat.networks.thermometer import LEVELS
from quasinat.training import train_classifier, train_distilled, train_saturating, train_trades
from quasinat.training.distillation import TEMPERATURE

USUAL_BUDGET = Linf(8 / 255)  # Madry et al. 2018 and Zhang et al. 2019, of CIFAR-10


@runtime_checkable
class Fit(Protocol):
    """Trains one new network on the training images and returns it in eval mode.

    Args:
        train: takes `network, images, labels` and the options of `train_classifier`.
        role: of the network, where a training has several.
        network: options of `vgg` besides those that all trainings share.
        options: more of `train`.
    """

    def __call__(
        self,
        train: Callable[..., nn.Module],
        *,
        role: str = "classifier",
        network: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> VGG: ...


def plain(fit: Fit, *, encoding: str = "none", levels: int = LEVELS) -> VGG:
    """Cross-entropy on the images, which are T(x) for `retrained`."""
    return fit(train_classifier, network=_encoded(encoding, levels))


def adversarial(
    fit: Fit,
    *,
    budget: Budget = USUAL_BUDGET,
    steps: int = 7,
    share: float = 1.0,
    encoding: str = "none",
    levels: int = LEVELS,
) -> VGG:
    """On PGD's images (Madry et al. 2018); of a thermometer, PGD climbs the derivative that stands for the bits'."""
    return fit(train_on_pgd, network=_encoded(encoding, levels), budget=budget, steps=steps, share=share)


def fgsm(
    fit: Fit,
    *,
    budget: Budget = FGSM_BUDGET,
    share: float = 0.5,
    encoding: str = "none",
    levels: int = LEVELS,
) -> VGG:
    """On FGSM's images of drawn size, up to the budget (Kurakin et al. 2017)."""
    return fit(train_on_fgsm, network=_encoded(encoding, levels), budget=budget, share=share)


def trades(fit: Fit, *, budget: Linf = USUAL_BUDGET, beta: float = 6.0, steps: int = 10) -> VGG:
    """TRADES (Zhang et al. 2019); the budget is its radius."""
    return fit(train_trades, radius=budget.size, beta=beta, steps=steps)


def saturating(fit: Fit, *, penalty: float = 3.0) -> VGG:
    """A network of saturating units, and a penalty on those that are not (Nayebi & Ganguli 2017)."""
    return fit(train_saturating, network={"activation": "saturating"}, penalty=penalty)


def distilled(fit: Fit, *, temperature: float = TEMPERATURE) -> VGG:
    """Defensive distillation (Papernot et al. 2016): a teacher, then the student, which is the classifier."""
    teacher = fit(train_distilled, role="teacher", temperature=temperature)
    return fit(train_distilled, role="student", temperature=temperature, teacher=teacher)


TRAININGS: dict[str, Callable[..., VGG]] = {
    "vanilla": plain,
    "retrained": plain,
    "adversarial": adversarial,
    "fgsm": fgsm,
    "trades": trades,
    "saturating": saturating,
    "distilled": distilled,
}


def usual_options(kind: str) -> dict[str, Any]:
    """The options of a training, and the value of each where none is given."""
    parameters = inspect.signature(TRAININGS[kind]).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.name != "fit"}


def _encoded(encoding: str, levels: int) -> dict[str, Any]:
    return {} if encoding == "none" else {"encoding": encoding, "levels": levels}
