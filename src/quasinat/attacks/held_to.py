"""Minimal-norm attacks at a fixed budget."""

from quasinat.arrays import Images
from quasinat.attacks.budget import Budget


def held_to(images: Images, perturbed: Images, budget: Budget) -> Images:
    """Each perturbation rescaled along its direction to exactly the budget, then clipped to [0, 1].

    The paper compares DeepFool and Carlini-Wagner with other attacks at one L2-dissimilarity (section 5.1, 0.03);
    both look for the smallest perturbation, so it is shrunk or stretched to that size here. An image that has not
    moved has no direction and stays. An infinite budget stretches to the diameter of the box.

    Args:
        images: the clean ones, `B C H W` in [0, 1].
        perturbed: the same shape.
        budget: per image.
    """
    return (images + budget.scaled(images, perturbed - images)).clamp(0, 1)
