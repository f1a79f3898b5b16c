"""Randomised smoothing: the radius around each image within which, with a proof, no perturbation changes the class."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from quasinat.arrays import Images, Labels, PerImage, PerImageBool, PerImageInt
from quasinat.attacks.checks import check_count, check_logits, check_number
from quasinat.attacks.model_access import attacking
from quasinat.data.draws import generator_for
from quasinat.errors import InputError, UsageError
from quasinat.evaluation.accuracy import Accuracy, accuracy_of

Counts = Int64[Tensor, "batch classes"]
Stream = Literal["selection", "estimation"]
ABSTAIN = -1
CHUNK = 50  # noisy copies of one draw; another number is other noise
_SELECTION_FROM = 2**31  # the chunks that select are numbered from here, far from those that estimate


@dataclass(frozen=True)
class Certificates:
    """What is proven of each image.

    Attributes:
        classes: of the smoothed classifier; `ABSTAIN` where none is certified.
        radii: of the open L2 ball around the image in which that class does not change; 0 where there is none.
        abstained: whether there is none.
    """

    classes: PerImageInt
    radii: PerImage
    abstained: PerImageBool


def certify(
    model: nn.Module,
    images: Images,
    *,
    sigma: float,
    classes: int,
    samples: int = 1000,
    selection: int = 100,
    alpha: float = 0.001,
    batch_size: int = 128,
    seed: int = 0,
    first: int = 0,
) -> Certificates:
    """A certified L2 radius for each image (Cohen, Rosenfeld & Kolter 2019, section 3.2.2, CERTIFY, and Theorem 1).

    The smoothed classifier g(x) answers with the class that f(clip(x + e)) most probably is, e ~ N(0, sigma^2 I), where
    f is the model and clip brings every pixel to [0, 1]. The theorem holds of any measurable base classifier, and
    f(clip(.)) is one: nothing is lost by the clip, and the model sees images as it expects them. What is certified is
    g, not f: g(x + d) = g(x) for every d in R^d with ||d||_2 < radius, in pixels of [0, 1], whether x + d is an image
    or not.

    Each certificate is wrong with a probability of at most `alpha`, over the noise. The theorem is about real numbers:
    rounding is not covered. The model must treat its images one by one.

    Args:
        model: images to logits; held in evaluation mode.
        images: `B C H W` in [0, 1].
        sigma: standard deviation of the noise, in pixels of [0, 1].
        classes: how many the model has.
        samples: n, noisy copies of each image that bound the probability of its class.
        selection: n0, further copies that choose the class.
        alpha: in (0, 1).
        batch_size: noisy copies at once.
        seed: of the noise.
        first: number of the first image in the whole set, see `noise_counts`.

    Raises:
        InputError: a batch or a model that cannot be used; names the image.
        UsageError: a number out of its range.
    """
    check_alpha(alpha)
    check_count("samples", samples)

    def counts(stream: Stream, copies: int) -> Counts:
        return noise_counts(
            model,
            images,
            sigma=sigma,
            samples=copies,
            classes=classes,
            batch_size=batch_size,
            seed=seed,
            first=first,
            stream=stream,
        )

    return certificate(counts("selection", selection), counts("estimation", samples), sigma, alpha)


def noise_counts(
    model: nn.Module,
    images: Images,
    *,
    sigma: float,
    samples: int,
    classes: int,
    batch_size: int = 128,
    seed: int = 0,
    start: int = 0,
    first: int = 0,
    stream: Stream = "estimation",
    on_batch: Callable[[int], None] | None = None,
) -> Counts:
    """How often each class is the model's answer to noisy copies of each image, `B classes`, on the CPU.

    The noise of a copy is a function of the seed, the stream, the number of its image and its own number alone, drawn
    on the CPU: neither the batch nor the device changes it, and counts of consecutive numbers add up to those of all.

    Args:
        model, images, sigma, classes, batch_size, seed: as of `certify`.
        samples: noisy copies of each image.
        start: number of the first copy.
        first: number of the first image in the whole set; the others follow.
        stream: the noise that chooses the class, or the independent one that counts it.
        on_batch: called with the number of noisy copies done.

    Raises:
        InputError: a batch or a model that cannot be used; names the image.
        UsageError: a number out of its range.
    """
    check_number("sigma", sigma)
    for name, value, least in (("samples", samples, 1), ("batch_size", batch_size, 1), ("classes", classes, 2)):
        check_count(name, value, least)
    for name, value in (("start", start), ("first", first)):
        check_count(name, value, 0)
    unlabelled = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    with attacking(model, images, unlabelled) as (clean, _), torch.no_grad():
        counts, done = torch.zeros(len(clean), classes, dtype=torch.int64), 0
        copies = (
            (row, noise)
            for row in range(len(clean))
            for noise in _noise(clean.shape[1:], seed, stream, first + row, start, start + samples)
        )
        for rows, noisy in _batches(clean, copies, sigma, batch_size):
            logits = model(noisy)
            check_logits(logits, torch.zeros(len(noisy), dtype=torch.int64, device=logits.device), rows)
            if logits.shape[1] != classes:
                raise InputError(f"the model has {logits.shape[1]} classes, not {classes}", "pass one of these classes")
            places = rows * classes + logits.argmax(1).cpu()
            counts += torch.bincount(places, minlength=counts.numel()).view_as(counts)
            done += len(rows)
            if on_batch is not None:
                on_batch(done)
    return counts


def _noise(shape: torch.Size, seed: int, stream: Stream, image: int, start: int, stop: int) -> Iterator[Tensor]:
    """Standard normal draws for the copies `start` to `stop` of an image, in pieces of at most `CHUNK`.

    A generator uses 32 bits of its seed. Numbering the chunks from one place an image, no two chunks of it are alike.
    """
    place = generator_for(seed, "smoothing", str(image)).initial_seed()
    place += _SELECTION_FROM if stream == "selection" else 0
    for chunk in range(start // CHUNK, -(-stop // CHUNK)):
        generator = torch.Generator().manual_seed((place + chunk) % 2**32)
        rows = slice(max(start - chunk * CHUNK, 0), min(stop - chunk * CHUNK, CHUNK))
        yield torch.randn(CHUNK, *shape, generator=generator)[rows]


def _batches(
    images: Images, copies: Iterator[tuple[int, Tensor]], sigma: float, batch_size: int
) -> Iterator[tuple[PerImageInt, Images]]:
    """clip(x + e) in batches that may span images, with the row of the image of each."""
    rows, noisy = torch.zeros(0, dtype=torch.int64), images[:0]
    for row, noise in copies:
        rows = torch.cat([rows, torch.full((len(noise),), row)])
        noisy = torch.cat([noisy, (images[row] + sigma * noise.to(images)).clamp(0, 1)])
        while len(rows) >= batch_size:
            yield rows[:batch_size], noisy[:batch_size]
            rows, noisy = rows[batch_size:], noisy[batch_size:]
    if len(rows):
        yield rows, noisy


def lower_bound(successes: int, trials: int, alpha: float) -> float:
    """The one-sided Clopper-Pearson bound: below the true probability in at least 1 - alpha of all experiments.

    It is the p with P(Binomial(trials, p) >= successes) = alpha (Clopper & Pearson 1934), a quantile of a beta
    distribution; 0 without a success.

    Raises:
        UsageError: no trial, a number of successes that cannot be, or `alpha` outside (0, 1).
    """
    from scipy import stats  # type: ignore[import-untyped, unused-ignore]

    check_alpha(alpha)
    check_count("trials", trials)
    if not 0 <= successes <= trials:
        raise UsageError(f"{successes} successes of {trials} trials", f"give a number from 0 to {trials}")
    return float(stats.beta.ppf(alpha, successes, trials - successes + 1)) if successes else 0.0


def certificate(selection: Counts, estimation: Counts, sigma: float, alpha: float) -> Certificates:
    """Class and radius from the counts of independent noise (Cohen et al. 2019, CERTIFY).

    radius = sigma Phi^-1(p), p the lower bound of the selected class's probability, where p > 1/2; else no class.

    Args:
        selection: how often each class was answered, `B classes`: the most frequent one is the candidate.
        estimation: the counts, of other noise, that bound its probability.
        sigma: of the noise.
        alpha: in (0, 1).

    Raises:
        UsageError: an image without counts, or a number out of its range.
    """
    from scipy import stats  # type: ignore[import-untyped, unused-ignore]

    check_number("sigma", sigma)
    check_alpha(alpha)
    chosen = selection.argmax(1)
    hits = estimation.gather(1, chosen[:, None])[:, 0].tolist()
    bounds = [lower_bound(k, n, alpha) for k, n in zip(hits, estimation.sum(1).tolist(), strict=True)]
    radii = [sigma * float(stats.norm.ppf(p)) if p > 0.5 else 0.0 for p in bounds]
    abstained = torch.tensor([p <= 0.5 for p in bounds], dtype=torch.bool)
    return Certificates(chosen.masked_fill(abstained, ABSTAIN), torch.tensor(radii, dtype=torch.float64), abstained)


def predict(counts: Counts, alpha: float) -> PerImageInt:
    """The smoothed classifier's answer to each image, or `ABSTAIN` (Cohen et al. 2019, section 3.2.1, PREDICT).

    The most frequent class, where a two-sided binomial test tells it from the second at level `alpha`: it is another
    than that of g(x) with a probability of at most `alpha`.

    Args:
        counts: how often each class was the answer under noise, `B classes`.

    Examples:
        >>> import torch
        >>> from quasinat.evaluation import predict
        >>> predict(torch.tensor([[95, 5], [52, 48]]), alpha=0.001)  # the second abstains
        tensor([ 0, -1])
    """
    from scipy import stats  # type: ignore[import-untyped, unused-ignore]

    check_alpha(alpha)
    top = counts.topk(2, dim=1)
    pairs = [(first, first + second) for first, second in top.values.tolist()]
    unsure = [n == 0 or stats.binomtest(k, n, 0.5).pvalue > alpha for k, n in pairs]
    return top.indices[:, 0].masked_fill(torch.tensor(unsure, dtype=torch.bool), ABSTAIN)


def largest_radius(sigma: float, samples: int, alpha: float) -> float:
    """The radius where all noisy copies agree, which no certificate exceeds; 0 where even that certifies nothing.

    Args:
        sigma: deviation of the noise, in pixels of [0, 1].
        samples: noisy copies that bound a probability.
        alpha: probability that a certificate is wrong, at most.

    Examples:
        >>> from quasinat.evaluation import largest_radius
        >>> round(largest_radius(sigma=0.25, samples=500, alpha=0.001), 3)
        0.551
    """
    from scipy import stats  # type: ignore[import-untyped, unused-ignore]

    return max(0.0, sigma * float(stats.norm.ppf(lower_bound(samples, samples, alpha))))


def certified_accuracy(certificates: Certificates, labels: Labels, radii: Sequence[float]) -> list[Accuracy]:
    """At each radius r, the share of images whose class is right and certified beyond r; an abstention is wrong.

    No perturbations of an L2 norm of r or less bring the smoothed classifier's accuracy on these images below it, but
    for the certificates that are wrong: a share of at most alpha is to be expected.

    Args:
        certificates: of the images.
        labels: `B`, from 0.
        radii: in the L2 norm, in pixels of [0, 1].
    """
    right = certificates.classes == labels.cpu()
    return [accuracy_of(right & (certificates.radii > radius)) for radius in radii]


def average_radius(certificates: Certificates, labels: Labels) -> float:
    """The mean radius over all images, 0 where the class is wrong (the ACR of Zhai et al. 2020).

    Args:
        certificates: of the images.
        labels: `B`, from 0.
    """
    right = certificates.classes == labels.cpu()
    return float((certificates.radii * right).mean()) if len(labels) else math.nan


def check_alpha(alpha: float) -> None:
    """Raises a `UsageError` where `alpha` is no probability between 0 and 1."""
    if not 0 < alpha < 1:
        raise UsageError(f"alpha is {alpha}", "give a number between 0 and 1, such as 0.001")
