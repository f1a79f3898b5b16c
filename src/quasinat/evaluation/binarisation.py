"""The binarisation test of an attack: an adversarial example is planted for every image, and the attack must find one.

(Zimmermann, Brendel, Tramer & Carlini 2022, "Increasing Confidence in Adversarial Robustness Evaluations", section 3.)
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, nn

from quasinat.arrays import Images, PerImage, PerImageBool, PerImageInt
from quasinat.attacks.budget import Budget
from quasinat.attacks.checks import check_count
from quasinat.attacks.model_access import attacking
from quasinat.attacks.registry import Attack
from quasinat.data.draws import generator_for
from quasinat.errors import UsageError
from quasinat.evaluation.accuracy import Accuracy, accuracy_of
from quasinat.evaluation.planted_task import Embedding, Planted, planted_task, points_at

Row = tuple[bool, bool, float, float, int]  # of `Binarisation`: valid, success, random share, reached, queries
SLACK, TINY = 1e-4, 1e-6  # of the budget, and in its measure: room for the rounding of an attack's image


@dataclass(frozen=True)
class Binarisation:
    """What the test says of each image; on the CPU but for `images`.

    Attributes:
        valid: whether there is a task: the readout tells the two kinds of points apart, and on the finished binary
            model each planted point is adversarial, within the budget and the box, and the image itself is not. The
            other outcomes are `False`, 0 or NaN where there is none.
        success: whether the attack's image is adversarial, within the budget and the box.
        random_success: whether any of the random points is adversarial.
        random_share: how many of them are, in [0, 1].
        reached: how far the attack came: 0 is the highest score of an inner point, 1 the lowest of a planted one.
        queries: of the attack.
        images: the attack's, `B C H W`; the clean one where there is no task.
    """

    valid: PerImageBool
    success: PerImageBool
    random_success: PerImageBool
    random_share: PerImage
    reached: PerImage
    queries: PerImageInt
    images: Images

    @property
    def tasks(self) -> Accuracy:
        """The share of images that have a task."""
        return accuracy_of(self.valid)

    @property
    def rate(self) -> Accuracy:
        """The attack's share of successes among the tasks; well below 1, it would miss what is there elsewhere too."""
        return accuracy_of(self.success[self.valid])

    @property
    def random_rate(self) -> Accuracy:
        """The same of the random search; where it comes near that of the attack, the tasks are too easy to tell."""
        return accuracy_of(self.random_success[self.valid])


def binarisation(
    model: nn.Module,
    images: Images,
    *,
    budget: Budget,
    attack: Attack,
    inner: int = 100,
    boundary: int = 1,
    inner_share: float = 0.95,
    closeness: float = 0.999,
    features: Embedding | None = None,
    random_points: int = 200,
    batch_size: int = 128,
    seed: int = 0,
    first: int = 0,
    on_image: Callable[[int, int], None] | None = None,
) -> Binarisation:
    """Runs an attack where an adversarial example is known to be (Zimmermann et al. 2022, Algorithm 1).

    For each image x: `inner` points (x itself and random ones at a share of the budget) and `boundary` points at the
    full budget. A linear readout of the model's features is fitted to tell them apart, and its threshold is moved close
    to the boundary points, which thereby become the planted adversarial examples. The attack starts from x, of class 0,
    on the model with this readout. One that does not succeed nearly always is too weak for this model, and what it
    says of the model's robustness is worth nothing. A random search of `random_points` further boundary points should
    fail, or the tasks are so easy that a success means little: raise `inner`, `closeness` or `inner_share`.

    Both kinds of points are random corners of an Linf ball, or random points of an L2 sphere, clipped to the box. The
    paper's inner points are uniform in the ball; in an Linf ball the readout then learns the strength of the noise,
    which every random corner has, and the random search succeeds. An image whose points the readout cannot separate
    has no task and is left out, as in the authors' code; the more features there are, the fewer those are. The draws of
    an image are a function of the seed and its number alone. The features must not be random, and the model must treat
    its images one by one.

    Args:
        model: what the attack is to be tested on: a `Defended` with an adjoint named, or any module. Its features are
            those of `embed`, where it or its classifier has that, else the logits. Held in evaluation mode.
        images: `B C H W` in [0, 1].
        budget: of the boundary points and the attack, per image.
        attack: `(model, images, labels, *, budget) -> AttackResult`; called once an image. Of a `Defended` it sees a
            `Defended` with the same transformation.
        inner, boundary: how many points; 999 and 1 in much of the authors' code.
        inner_share: radius of the inner ball as a share of the budget, in [0, 1); 0.95 in the authors' code.
        closeness: where the threshold is, in (0, 1): near 0 just above the inner points' scores, near 1 just below the
            lowest of the planted ones. 0.999 in the authors' code.
        features: images to features, differentiably, instead of those above.
        random_points: of the random search, drawn like the boundary points.
        batch_size: points at once.
        seed: of the points.
        first: number of the first image in the whole set; the others follow.
        on_image: called with the images done, and the images in all.

    Raises:
        InputError: images that are not a batch in [0, 1], or features that are not finite.
        UsageError: a number out of its range.
    """
    for name, count in (("inner", inner), ("boundary", boundary), ("random_points", random_points)):
        check_count(name, count)
    check_count("batch_size", batch_size)
    if not 0 <= inner_share < 1:
        raise UsageError(f"inner_share is {inner_share}", "give a share of the budget, at least 0 and below 1")
    if not 0 < closeness < 1:
        raise UsageError(f"closeness is {closeness}", "give a number between 0 and 1")
    rows: list[Row] = []
    unlabelled = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    with attacking(model, images, unlabelled) as (clean, _):
        found = clean.clone()
        for i in range(len(clean)):
            x, label = clean[i : i + 1], unlabelled[i : i + 1]
            near = torch.cat([x, points_at(x, budget, inner_share, inner - 1, _draws(seed, "inner", first + i))])
            planted = points_at(x, budget, 1.0, boundary, _draws(seed, "planted", first + i))
            task = planted_task(model, near, planted, closeness=closeness, features=features, batch_size=batch_size)
            task.model.eval()  # what is new in it; the rest is already
            if task.separable and _holds(task.model, x, planted, budget):
                result = attack(task.model, x, label, budget=budget)
                guesses = points_at(x, budget, 1.0, random_points, _draws(seed, "random", first + i))
                with torch.no_grad():
                    success = _adversarial(task.model, x, result.images, budget)
                    reached = closeness + float(task.model(result.images)[0, 1]) / task.gap
                    hits = torch.cat([task.model(part).argmax(1) == 1 for part in guesses.split(batch_size)])
                found[i : i + 1] = result.images
                rows.append((True, success, float(hits.double().mean()), reached, int(result.queries[0])))
            else:
                rows.append((False, False, 0.0, torch.nan, 0))
            if on_image is not None:
                on_image(i + 1, len(clean))
    return _gathered(rows, found)


def _draws(seed: int, kind: str, number: int) -> Generator:
    return generator_for(seed, "binarisation", kind, str(number))


def _adversarial(task: nn.Module, image: Images, perturbed: Images, budget: Budget) -> bool:
    """Of one image: whether the task says 1 on a point within the budget and the box."""
    moved = float(budget.measure(image, perturbed)[0])
    inside = moved <= (1 + SLACK) * budget.size + TINY and bool(((perturbed >= 0) & (perturbed <= 1)).all())
    return inside and int(task(perturbed).argmax(1)[0]) == 1


@torch.no_grad()
def _holds(task: nn.Module, image: Images, planted: Planted, budget: Budget) -> bool:
    """Whether the task is what it should be as the attack sees it, one image at a time."""
    right = [_adversarial(task, image, point, budget) for point in planted.split(1)]
    return all(right) and not _adversarial(task, image, image, budget)


def _gathered(rows: list[Row], images: Images) -> Binarisation:
    valid, success, share, reached, queries = zip(*rows, strict=True) if rows else ((),) * 5
    shares = torch.tensor(share, dtype=torch.float64)
    return Binarisation(
        valid=torch.tensor(valid, dtype=torch.bool),
        success=torch.tensor(success, dtype=torch.bool),
        random_success=shares > 0,
        random_share=shares,
        reached=torch.tensor(reached, dtype=torch.float64),
        queries=torch.tensor(queries, dtype=torch.int64),
        images=images,
    )
