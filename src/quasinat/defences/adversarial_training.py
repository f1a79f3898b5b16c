"""Adversarial training on FGSM's images of drawn strength, as the paper's table 8 compares with."""

from functools import partial
from typing import Any

import torch
from torch import nn

from quasinat.arrays import Images, Labels
from quasinat.attacks import Budget, Dissimilarity, fgsm, pgd
from quasinat.attacks.budget_text import budget_text
from quasinat.training import train_adversarially
from quasinat.training.classifier import Network

USUAL_BUDGET = Dissimilarity(0.08)  # the paper's table 8


def fgsm_of_drawn_size(network: nn.Module, images: Images, labels: Labels, *, seed: int, budget: Budget) -> Images:
    """FGSM's images of a budget that is drawn for the batch: |N(0, size / 2)|, drawn again where it exceeds `size`.

    (Kurakin et al. 2017, "Adversarial Machine Learning at Scale", section 3: drawn, so that the network does not
    overfit to one size.) The loss that is climbed is that of the network's own decision and not of the true label: the
    source finds that networks learn to read the label off FGSM's images ("label leaking", section 4.3).

    Args:
        network: images to logits.
        images: `B C H W` in [0, 1].
        labels: not used.
        seed: of the draw.
        budget: the largest.
    """
    generator = torch.Generator().manual_seed(seed)
    while True:
        size = abs(float(torch.randn((), generator=generator))) * budget.size / 2
        if size <= budget.size:
            break
    with torch.no_grad():
        decided = network(images).argmax(1)
    return fgsm(network, images, decided, budget=budget.resized(size)).images


def train_on_fgsm(
    network: Network,
    images: Images,
    labels: Labels,
    *,
    budget: Budget = USUAL_BUDGET,
    share: float = 0.5,
    **options: Any,
) -> Network:
    """Adversarial training on FGSM's images, half of each batch, of sizes up to `budget` (Kurakin et al. 2017).

    The paper's table 8 trains on "FGSM-0.08"; that half of the batch is perturbed, with a size drawn for each batch, is
    the source's. Attacks of larger budgets, and those it was not trained on, are what it is compared on.

    What differs from the source, and why: clean and perturbed images weigh the same, where the source weighs the latter
    0.3; the size is drawn for a batch and not for an image, which is one budget a call; AdamW.

    Args:
        network, images, labels: as of `train_adversarially`, so are the `options`.
        budget: the largest of each image.
        share: of each batch that is perturbed.
    """
    perturb = partial(fgsm_of_drawn_size, budget=budget)
    own = {"attack": "fgsm of drawn size", "budget": budget_text(budget)}
    return train_adversarially(network, images, labels, perturb=perturb, share=share, fingerprint=own, **options)


def train_on_pgd(
    network: Network, images: Images, labels: Labels, *, budget: Budget, steps: int = 7, **options: Any
) -> Network:
    """Adversarial training on PGD's images, all of each batch (Madry et al. 2018, section 2.1).

    Args:
        network, images, labels: as of `train_adversarially`, so are the `options`.
        budget: of each image; the source's for CIFAR-10 is L-infinity 8/255.
        steps: of PGD, from one random start; 7 in the source.
    """
    own = {"attack": "pgd", "budget": budget_text(budget), "steps": steps}
    perturb = partial(_by_pgd, budget=budget, steps=steps)
    return train_adversarially(network, images, labels, perturb=perturb, fingerprint=own, **options)


def _by_pgd(network: nn.Module, images: Images, labels: Labels, *, seed: int, budget: Budget, steps: int) -> Images:
    return pgd(network, images, labels, budget=budget, steps=steps, seed=seed).images
