"""AutoAttack through its authors' package: the yardstick that everybody reports."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from quasinat.arrays import Images, Labels
from quasinat.attacks.budget import L2, Budget, Dissimilarity, Linf
from quasinat.attacks.checks import check_count
from quasinat.attacks.goal import Goal
from quasinat.attacks.model_access import attacking, input_gradient, logits_of, watched
from quasinat.attacks.result import AttackResult, judged
from quasinat.errors import InputError, UsageError, did_you_mean

VERSIONS = {"standard": 4, "plus": 4, "rand": 3}
"""Each with the least classes that it can do with: its DLR loss compares four logits, or three."""
TARGETS = 9  # how many classes the targeted attacks of AutoAttack try


def auto_attack(
    model: nn.Module,
    images: Images,
    labels: Labels,
    *,
    budget: Budget,
    version: str = "standard",
    seed: int = 0,
    batch_size: int = 250,
) -> AttackResult:
    """AutoAttack (Croce & Hein 2020, section 5), as the package `pyautoattack` runs it.

    Each attack of the ensemble sees only the images that the ones before it have not broken. An image that no attack
    breaks comes back clean, as does one that is wrong at the start: the package hands out nothing else of them. It
    computes in single precision, and it draws for whole batches: an image's result depends on its batch, unless
    `batch_size` is 1. What it suspects of the model (random or dynamic, probabilities for logits, vanishing gradients)
    goes to the logger `auto-attack`. The queries are a mean over the images of one radius, rounded up, because the
    package does not tell which image cost what.

    Args:
        model: images to logits, of at least 4 classes (3 for `rand`).
        images: `B C H W` in [0, 1].
        labels: the true classes.
        budget: the package has one radius for all images, so that under `Dissimilarity` images of different lengths
            are attacked one by one: slow on a device that likes batches.
        version: `standard` (APGD-CE, APGD-T, FAB-T, Square), `plus` (with restarts, and APGD-DLR and FAB too) or `rand`
            (for models that draw: APGD-CE and APGD-DLR, each gradient a mean over 20 passes).
        seed: of every attack's random draws.
        batch_size: how many images go through the model at once.

    Raises:
        InputError: a batch or a model that cannot be attacked; names the image.
        UsageError: an unknown version or kind of budget, a `batch_size` under 1, or no `pyautoattack`.
    """
    if version not in VERSIONS:
        raise UsageError(f"unknown version {version!r}", did_you_mean(version, list(VERSIONS)))
    if not isinstance(budget, Linf | L2 | Dissimilarity):
        raise UsageError(f"AutoAttack has no budget {type(budget).__name__}", "give Linf, L2 or Dissimilarity")
    check_count("batch_size", batch_size)
    _check_installed()
    norm = "Linf" if isinstance(budget, Linf) else "L2"
    with attacking(model, images, labels) as (clean, goal):
        targets = min(TARGETS, _classes_of(model, clean, goal, version, batch_size) - 1)
        perturbed, queries = clean.clone(), torch.full_like(goal.labels, 2)
        radii = budget.reach(clean)
        for radius in radii[radii > 0].unique():
            rows = (radii == radius).nonzero()[:, 0]
            counter = _Counter(model, clean.dtype)
            with _nothing_left_behind(model):
                found = _run(
                    counter, clean[rows], goal.labels[rows], norm, radius.item(), version, targets, seed, batch_size
                )
            perturbed[rows] = budget.project(clean[rows], found)
            queries[rows] += -(-counter.queries // len(rows))
        return judged(model, perturbed, goal, queries)


def _run(
    model: nn.Module,
    images: Images,
    labels: Labels,
    norm: str,
    radius: float,
    version: str,
    targets: int,
    seed: int,
    batch_size: int,
) -> Images:
    """The package on images of one radius; those that it has not moved come back to the bit."""
    from pyautoattack import AutoAttack

    single = images.float()
    ensemble = AutoAttack(model, norm=norm, eps=radius, seed=seed, version=version, device=images.device)
    ensemble.apgd_targeted.n_target_classes = ensemble.fab.n_target_classes = targets
    found, _ = ensemble.run_standard_evaluation(single, labels, batch_size=batch_size)
    return torch.where(found == single, images, found.to(images.dtype))


class _Counter(nn.Module):
    """The model as the package sees it: single precision in and out, and every pass of every image counted."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype
        self.queries = 0

    def forward(self, images: Tensor) -> Tensor:
        logits = self.model(images.to(self.dtype)).float()
        self._count(logits)
        if logits.requires_grad:
            logits.register_hook(self._count)
        return logits

    def _count(self, rows: Tensor) -> None:
        self.queries += len(rows)


def _classes_of(model: nn.Module, images: Images, goal: Goal, version: str, batch_size: int) -> int:
    """How many classes the model has, once it has shown logits and a gradient for every image, and classes enough."""
    classes = least = VERSIONS[version]
    for rows in torch.arange(len(images), device=images.device).split(batch_size):
        leaf, aim = watched(images[rows]), goal.of(rows)
        logits = logits_of(model, leaf, aim, rows)
        input_gradient(aim.loss("cross-entropy", logits), leaf, rows)
        classes = logits.shape[1]
        if classes < least:
            problem = f"AutoAttack's {version} version needs {least} classes and the model has {classes}"
            raise InputError(problem, "use apgd and square")
    return classes


def _check_installed() -> None:
    try:
        import pyautoattack  # noqa: F401
    except ImportError as error:
        raise UsageError("AutoAttack needs the package pyautoattack", "pip install quasinat[interop]") from error


@contextmanager
def _nothing_left_behind(model: nn.Module) -> Iterator[None]:
    """Undoes what the package does to its surroundings.

    It seeds the global generators, takes away the interpreter's trace function (a debugger's, or that of a measurement
    of test coverage), and calls `backward`, which would leave gradients on the parameters.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    trace = sys.gettrace()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        with torch.random.fork_rng(devices):
            yield
    finally:
        sys.settrace(trace)
        for parameter in trained:
            parameter.requires_grad_(True)
