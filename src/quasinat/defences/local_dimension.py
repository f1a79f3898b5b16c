"""The LID detector: adversarial images lie where the activations' local intrinsic dimension is high."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quasinat.arrays import Images, PerImage
from quasinat.attacks.checks import check_count, check_images
from quasinat.defences.detector import Detector
from quasinat.errors import InputError, UsageError

NEIGHBOURS, MINIBATCH = 20, 100  # k and the size of a minibatch of section 5.1's CIFAR-10 experiments
Points = Float[Tensor, "points features"]
Reference = Float[Tensor, "reference features"]
Dimensions = Float[Tensor, "batch layers"]


@runtime_checkable
class Layered(Protocol):
    """A network whose layers can be walked: `features(normalise(images))`, as the VGGs of `quasinat.networks`."""

    normalise: nn.Module
    features: nn.Sequential


def local_dimension(points: Points, reference: Reference, neighbours: int = NEIGHBOURS) -> Float[Tensor, "points"]:
    """The maximum-likelihood estimate of the local intrinsic dimension at each point, among reference points.

    LID(x) = -(1/k sum_i log(r_i(x) / r_k(x)))^-1, r_i the distance from x to its i-th nearest reference point
    (Amsaleg et al. 2015; Ma et al. 2018, "Characterizing Adversarial Subspaces Using Local Intrinsic Dimensionality",
    Eq. 4). Reference points that coincide with x are passed over, as the source passes over x itself. A point whose
    neighbours are all equally far has an infinite dimension, which is returned as the largest finite one.

    Args:
        points: `points features`.
        reference: at least `neighbours` + 1 of them.
        neighbours: k.

    Raises:
        UsageError: fewer reference points than neighbours, or no neighbours.
    """
    check_count("neighbours", neighbours, 2)
    if len(reference) < neighbours + 1:
        problem = f"{len(reference)} reference points are too few for {neighbours} neighbours"
        raise UsageError(problem, f"give at least {neighbours + 1}")
    # Summed difference by difference: the short form |a|^2 + |b|^2 - 2ab loses the small distances that count here.
    distances = torch.stack([torch.linalg.vector_norm(reference - point, dim=1) for point in points])
    distances = distances.masked_fill(distances == 0, torch.inf)
    nearest = distances.topk(neighbours, dim=1, largest=False).values
    farthest = nearest[:, -1:].clamp_min(torch.finfo(points.dtype).tiny)
    means = (nearest / farthest).log().nan_to_num(0.0).mean(1)
    return (-1 / means.clamp_max(-torch.finfo(points.dtype).eps)).clamp_max(1 / torch.finfo(points.dtype).eps)


class LocalDimensionDetector(Detector):
    """Scores an image by a logistic regression on the local dimensions of its activations, one for each layer.

    (Ma et al. 2018, section 4, Algorithm 1.) The layers are the outputs of each ReLU and each pooling of the network's
    features, flattened. Neighbours are looked for in a minibatch of normal images.

    What differs from the source, and why: its minibatch is made of the other images at hand, so that an image's score
    depends on its batch; here it is fixed, `reference` images that are neither attacked nor judged. Regularisation is
    scikit-learn's default instead of a cross-validated one.

    Args:
        network: whose activations are looked at; in evaluation mode.
        reference: normal images, `R C H W`; the source's minibatch has 100.
        neighbours: k; the source has 20 for a minibatch of 100.

    Raises:
        UsageError: a network whose layers cannot be walked, or too few reference images.
        InputError: reference images that are not in [0, 1].
    """

    weight: Tensor
    bias: Tensor
    reference: Tensor

    def __init__(self, network: nn.Module, reference: Images, *, neighbours: int = NEIGHBOURS) -> None:
        super().__init__()
        if not isinstance(network, Layered):
            problem = f"the layers of {type(network).__name__} are not known"
            raise UsageError(problem, "give a network with normalise and features, such as quasinat.networks.vgg")
        check_images(reference)
        if len(reference) < neighbours + 1:
            problem = f"{len(reference)} reference images are too few for {neighbours} neighbours"
            raise UsageError(problem, f"give at least {neighbours + 1}")
        self.network, self.neighbours = network, neighbours
        self.register_buffer("reference", reference.detach().clone())
        with torch.no_grad():
            layers = len(self._activations(reference[:1]))
        self.register_buffer("weight", torch.zeros(layers))
        self.register_buffer("bias", torch.zeros(()))

    def _activations(self, images: Images) -> list[Points]:
        """The flattened outputs of every ReLU and pooling."""
        kept, values = [], self.network.normalise(images)
        for module in self.network.features:
            values = module(values)
            if isinstance(module, nn.ReLU | nn.MaxPool2d | nn.AvgPool2d):
                kept.append(values.flatten(1))
        return kept

    @torch.no_grad()
    def dimensions(self, images: Images) -> Dimensions:
        """The local dimension at each image, one for each layer, `B layers`."""
        pairs = zip(self._activations(images), self._activations(self.reference), strict=True)
        return torch.stack([local_dimension(own, others, self.neighbours) for own, others in pairs], 1)

    def scores(self, images: Images) -> PerImage:
        """The log-odds of being adversarial."""
        return self.dimensions(images) @ self.weight + self.bias

    def fit(self, normal: Images, noisy: Images, adversarial: Images) -> float:
        """Fits the logistic regression: normal and noisy images against adversarial ones (Algorithm 1).

        Args:
            normal: clean images; not the reference.
            noisy: as many with noise of the adversarial images' size.
            adversarial: as many under an attack.

        Returns:
            The share of all these images that is told apart rightly at even odds.

        Raises:
            InputError: a set is empty, or not images in [0, 1].
        """
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        sets = (normal, noisy, adversarial)
        for images in sets:
            check_images(images)
            if len(images) == 0:
                raise InputError("a set to fit the detector on is empty", "give normal, noisy and adversarial images")
        values = torch.cat([self._in_pieces(images) for images in sets]).double().cpu().numpy()
        truth = torch.cat([torch.full((len(images),), int(images is adversarial)) for images in sets]).numpy()
        scaler = StandardScaler().fit(values)
        fitted = LogisticRegression(class_weight="balanced", max_iter=1000).fit(scaler.transform(values), truth)
        weight = torch.from_numpy(fitted.coef_[0] / scaler.scale_)
        self.weight.copy_(weight)
        self.bias.fill_(float(fitted.intercept_[0] - weight @ torch.from_numpy(scaler.mean_)))
        return float(fitted.score(scaler.transform(values), truth))

    def _in_pieces(self, images: Images) -> Dimensions:
        return torch.cat([self.dimensions(part) for part in images.split(100)])


def noise_like(images: Images, adversarial: Images, *, seed: int = 0) -> Images:
    """The images with Gaussian noise of the L2 size that their adversarial twins' perturbations have, clipped.

    Args:
        images, adversarial: `B C H W` in [0, 1].
        seed: of the noise.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(images.shape, generator=generator).to(images)
    sizes = torch.linalg.vector_norm((adversarial - images).flatten(1), dim=1)
    scale = sizes / torch.linalg.vector_norm(noise.flatten(1), dim=1)
    return (images + scale.view(-1, 1, 1, 1) * noise).clamp(0, 1)
