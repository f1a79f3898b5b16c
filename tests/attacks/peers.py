"""Foolbox's and ART's attacks behind one face: images and labels in, perturbed images out.

Both are asked for what ours do: the same loss, step and start, and no early stop of a whole batch. ART works in float32
by a constant of its modules; `Art` sets it to the type of the images, so that steps can be compared to the last digit.
"""

from typing import Any, Protocol

import pytest
import torch
from torch import Tensor, nn

from quasinat.attacks import L2, Budget, Linf


class Peer(Protocol):
    """What is asked of a peer."""

    def fast_gradient(self, images: Tensor, labels: Tensor, budget: Budget) -> Tensor:
        """One step of the whole radius."""

    def iterate(
        self, images: Tensor, labels: Tensor, budget: Budget, steps: int, step_size: float, start: Tensor | None
    ) -> Tensor:
        """The last of `steps` iterates of projected gradient ascent from `start`, or from the images themselves."""

    def deepfool(self, images: Tensor, labels: Tensor, steps: int, overshoot: float) -> Tensor:
        """DeepFool in L2, all ten classes as candidates."""

    def carlini_wagner(self, images: Tensor, labels: Tensor, steps: int, search_steps: int, constant: float) -> Tensor:
        """Carlini and Wagner's L2 attack, its learning rate 0.01."""


class Foolbox:
    """Foolbox 3; what it calls a stepsize is a length."""

    def __init__(self, network: nn.Module) -> None:
        import foolbox

        self.attacks = foolbox.attacks
        self.model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")

    def _run(self, attack: Any, images: Tensor, labels: Tensor, epsilon: float | None) -> Tensor:
        return attack(self.model, images, labels, epsilons=epsilon)[1]

    def fast_gradient(self, images: Tensor, labels: Tensor, budget: Budget) -> Tensor:
        kinds = {Linf: self.attacks.LinfFastGradientAttack, L2: self.attacks.L2FastGradientAttack}
        return self._run(kinds[type(budget)](random_start=False), images, labels, budget.size)

    def iterate(
        self, images: Tensor, labels: Tensor, budget: Budget, steps: int, step_size: float, start: Tensor | None
    ) -> Tensor:
        kinds = {
            Linf: self.attacks.LinfProjectedGradientDescentAttack,
            L2: self.attacks.L2ProjectedGradientDescentAttack,
        }
        attack = kinds[type(budget)](steps=steps, abs_stepsize=step_size, random_start=start is not None)
        if start is not None:
            wrapped = _eager(start)
            attack.get_random_start = lambda *_: wrapped
        return self._run(attack, images, labels, budget.size)

    def deepfool(self, images: Tensor, labels: Tensor, steps: int, overshoot: float) -> Tensor:
        attack = self.attacks.L2DeepFoolAttack(steps=steps, overshoot=overshoot, candidates=10)
        return self._run(attack, images, labels, None)

    def carlini_wagner(self, images: Tensor, labels: Tensor, steps: int, search_steps: int, constant: float) -> Tensor:
        """Images that it never moves over the boundary come back black."""
        attack = self.attacks.L2CarliniWagnerAttack(
            steps=steps, binary_search_steps=search_steps, initial_const=constant, stepsize=0.01, abort_early=False
        )
        return self._run(attack, images, labels, None)


class Art:
    """The Adversarial Robustness Toolbox; its attacks are numpy in, numpy out."""

    def __init__(self, network: nn.Module, images: Tensor, patch: pytest.MonkeyPatch) -> None:
        import art.attacks.evasion as evasion
        from art.attacks.evasion.projected_gradient_descent import projected_gradient_descent_pytorch as descent
        from art.estimators.classification import PyTorchClassifier

        self.attacks, self.patch, self.descent = evasion, patch, descent
        for module in ("fast_gradient", "deepfool", "carlini", descent.__name__.removeprefix("art.attacks.evasion.")):
            name = f"art.attacks.evasion.{module}.ART_NUMPY_DTYPE"
            patch.setattr(name, images.numpy().dtype.type)
        patch.setattr("art.estimators.classification.pytorch.ART_NUMPY_DTYPE", images.numpy().dtype.type, raising=False)
        shape = tuple(images.shape[1:])
        self.model = PyTorchClassifier(
            network, nn.CrossEntropyLoss(), shape, 10, clip_values=(0.0, 1.0), device_type="cpu"
        )

    def _run(self, attack: Any, images: Tensor, labels: Tensor | None) -> Tensor:
        return torch.from_numpy(attack.generate(images.numpy(), None if labels is None else labels.numpy()))

    def fast_gradient(self, images: Tensor, labels: Tensor, budget: Budget) -> Tensor:
        attack = self.attacks.FastGradientMethod(self.model, norm=_order(budget), eps=budget.size, batch_size=64)
        return self._run(attack, images, labels)

    def iterate(
        self, images: Tensor, labels: Tensor, budget: Budget, steps: int, step_size: float, start: Tensor | None
    ) -> Tensor:
        attack = self.descent.ProjectedGradientDescentPyTorch(
            self.model,
            norm=_order(budget),
            eps=budget.size,
            eps_step=step_size,
            max_iter=steps,
            num_random_init=int(start is not None),
            batch_size=64,
            verbose=False,
        )
        if start is not None:
            self.patch.setattr(self.descent, "random_sphere", lambda *_: (start - images).numpy())
        return self._run(attack, images, labels)

    def deepfool(self, images: Tensor, labels: Tensor, steps: int, overshoot: float) -> Tensor:
        """It leaves the model's own decision, whatever the labels."""
        attack = self.attacks.DeepFool(
            self.model, max_iter=steps, epsilon=overshoot, nb_grads=10, batch_size=64, verbose=False
        )
        return self._run(attack, images, None)

    def carlini_wagner(self, images: Tensor, labels: Tensor, steps: int, search_steps: int, constant: float) -> Tensor:
        """A line search in place of Adam; an image that it never moves over the boundary comes back as it was."""
        attack = self.attacks.CarliniL2Method(
            self.model,
            max_iter=steps,
            binary_search_steps=search_steps,
            initial_const=constant,
            learning_rate=0.01,
            batch_size=64,
            verbose=False,
        )
        return self._run(attack, images, labels)


def _eager(tensor: Tensor) -> Any:
    import eagerpy

    return eagerpy.astensor(tensor)


def _order(budget: Budget) -> float:
    return 2 if isinstance(budget, L2) else float("inf")
