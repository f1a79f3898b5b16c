"""Attacking a model that draws at random: its mean logits as a model, and its worst of several answers."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from quasinat.arrays import Images, Labels, Logits, PerImage, PerImageBool
from quasinat.attacks.checks import check_count
from quasinat.attacks.model_access import attacking, logits_of


class Expectation(nn.Module):
    """The mean log-probabilities of `samples` evaluations of a randomised model: expectation over transformation.

    m(x) = mean_s log softmax(z_s(x)), z_s the logits of the s-th evaluation: the expectation whose label's entry
    Athalye et al. (2018, "Synthesizing robust adversarial examples", section 2.1, Eq. 1) optimise. Its gradient is the
    mean of the evaluations' gradients (Athalye, Carlini & Wagner 2018, section 4.2), so that any gradient attack on
    this module follows the expected gradient instead of one draw's. A deterministic model equals its expectation.

    What is averaged exactly: the gradient of each log-probability, hence of `mean_cross_entropy`, the mean of the
    evaluations' cross-entropies. The cross-entropy that an attack takes of m renormalises it first and so adds
    log sum_k exp(m_k), which is at most 0 and vanishes where the evaluations agree; no logits at all could avoid
    that. Every loss of `LOSSES` is blind to a shift of all logits, and to those m is the mean of the logits.

    Each forward pass evaluates the model `samples` times on the whole batch; while a gradient is wanted all those
    graphs are held. An attack's `queries` count one evaluation of this module, not of the model.

    Args:
        model: images to logits, random in evaluation mode too.
        samples: evaluations; the variance of the mean falls like 1 / samples.
        seed: PyTorch's global generators (CPU and CUDA) are seeded from it and the evaluation's number, and get their
            state back afterwards: every call sees the same draws. `None` leaves them running: every call draws
            afresh. A model that draws for a whole batch at once gives an image other draws in another batch.

    Raises:
        UsageError: `samples` under 1.
    """

    def __init__(self, model: nn.Module, samples: int = 30, seed: int | None = 0) -> None:
        check_count("samples", samples)
        super().__init__()
        self.model, self.samples, self.seed = model, samples, seed

    def forward(self, images: Images) -> Logits:
        """The mean log-probabilities, `B classes`; they are not normalised."""
        total: Logits | None = None
        for number in _numbers(self.samples, self.seed):
            with _drawing(number):
                logits = self.model(images).log_softmax(1)
            total = logits if total is None else total + logits
        assert total is not None  # samples is at least 1
        return total / self.samples


def mean_cross_entropy(logits: Logits, labels: Labels, targets: Labels | None = None) -> PerImage:
    """-m_y of an `Expectation`: exactly the mean of the evaluations' cross-entropies; with targets m_t.

    A loss in the sense of `LOSSES`, but only of normalised log-probabilities or means of them: of plain logits it is
    no cross-entropy.
    """
    wanted = labels if targets is None else targets
    log_probabilities = logits.gather(1, wanted[:, None])[:, 0]
    return -log_probabilities if targets is None else log_probabilities


def worst_of(
    model: nn.Module, images: Images, labels: Labels, *, submissions: int, seed: int | None = 0
) -> PerImageBool:
    """Whether a randomised model is right about each image every time that it is submitted.

    An attacker who may submit an image N times needs one error: a model that is right with probability p survives
    with p^N. A deterministic model answers the same each time, and its outcome does not depend on `submissions`.

    Args:
        model: images to logits; asked in evaluation mode.
        images: `B C H W` in [0, 1], clean or attacked.
        labels: the true classes.
        submissions: of each image; the first ones do not change when more are added.
        seed: as of `Expectation`.

    Raises:
        InputError: a batch or a model that cannot be judged; names the image.
        UsageError: `submissions` under 1.
    """
    check_count("submissions", submissions)
    with attacking(model, images, labels) as (clean, goal), torch.no_grad():
        right = torch.ones_like(goal.labels, dtype=torch.bool)
        for number in _numbers(submissions, seed):
            with _drawing(number):
                right &= ~goal.reached(logits_of(model, clean, goal))
        return right


def _numbers(count: int, seed: int | None) -> list[int | None]:
    """What each evaluation's draws are seeded with; nothing where the seed is `None`."""
    if seed is None:
        return [None] * count
    generator = torch.Generator().manual_seed(seed)
    return [int(torch.randint(2**62, (), generator=generator)) for _ in range(count)]


@contextmanager
def _drawing(number: int | None) -> Iterator[None]:
    """The global generators seeded inside, and as they were afterwards; CUDA's only where CUDA is in use."""
    if number is None:
        yield
        return
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(number)
        if devices:
            torch.cuda.manual_seed_all(number)
        yield
