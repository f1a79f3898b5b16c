"""Robust class activation maps: where in an image a classifier sees what it takes the image for."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from quasinat.arrays import Images
from quasinat.attacks.checks import check_count
from quasinat.attacks.model_access import evaluating
from quasinat.errors import UsageError

CLASSES = 5
Maps = Float[Tensor, "batch height width"]
ClassMaps = Float[Tensor, "batch classes rows columns"]


def ranking_weights(count: int) -> tuple[float, ...]:
    """1/2, 1/4, 1/8, ... of as many classes, the likeliest first; the last has 1.2 times the weight of the one before.

    These are the weights that a recursion in the authors' `generate_map.py` comes down to: from the least likely
    class on, map <- (map + next map) / 2, with 1.2 times the first map to begin with. Of 5 classes: 1/2, 1/4, 1/8,
    1/16, 1.2/16.
    """
    check_count("classes", count)
    halves = [0.5**rank for rank in range(1, count)]
    return (*halves, 1.2 * 0.5 ** (count - 1))


@torch.no_grad()
def class_activation_maps(network: nn.Module, images: Images) -> ClassMaps:
    """The class activation map of every class: sum over k of w_kc f_k(y, x) (Zhou et al. 2016, Eq. 2).

    The mean of a class's map, plus its bias, is its logit.

    Args:
        network: ends in global average pooling and one linear layer, and has three attributes: `normalise` and
            `features`, modules that make the feature map `B K rows columns` one after the other, and `classifier`, an
            `nn.Linear` of its average. The networks of `quasinat.networks` are such. Used in evaluation mode.
        images: `B C H W` in [0, 1].

    Raises:
        UsageError: the network has not these attributes.
    """
    with _evaluating(network) as parts:
        return _class_maps(parts, parts.features(parts.normalise(_as_weights(images, parts))))


@torch.no_grad()
def robust_activation_map(
    network: nn.Module,
    images: Images,
    *,
    classes: int = CLASSES,
    weights: tuple[float, ...] | None = None,
    before_pooling: bool = True,
) -> Maps:
    """The weighted sum of the activation maps of the likeliest classes, in [0, 1]: the R-CAM.

    (Prakash, Moran, Garber, DiLillo & Storer 2018, "Deflecting Adversarial Attacks with Pixel Deflection": an
    attack that changes the first class seldom changes the first five.) As in the authors' code
    (iamaaditya/image-compression-cnn, `generate_map.py`), each map is enlarged to the image's size and scaled to
    [0, 1] before it is weighted, and so is the sum.

    Args:
        network: see `class_activation_maps`.
        images: `B C H W` in [0, 1].
        classes: how many; all of them where the network has fewer.
        weights: of the classes, the likeliest first; `ranking_weights` unless given.
        before_pooling: take the features in front of a max pooling that comes last in `features`, if one does: the
            authors' network has none there. The classes are those of the whole network.

    Returns:
        `B H W`. A map without any differences, such as that of a single cell, is 0: it says nothing about where.

    Raises:
        UsageError: no classes, weights of another number, or a network without the attributes.

    What differs from the source: their network was trained for the maps, beside the classifier, while any may be given
    here, the classifier itself too; maps are enlarged with half-pixel centres, not with TensorFlow 1's corners; a map
    without differences gives NaN there. VGG-16's last pooling leaves a single cell of an image of 32 pixels, and the
    features in front of it have 2 x 2: on such images a smaller network says more.
    """
    check_count("classes", classes)
    if weights is not None and len(weights) != classes:
        raise UsageError(f"there are {len(weights)} weights for {classes} classes", "give one a class")
    with _evaluating(network) as parts:
        normalised = parts.normalise(_as_weights(images, parts))
        if before_pooling and _pools_last(parts.features):
            fine = parts.features[:-1](normalised)
            features = parts.features[-1](fine)
        else:
            features = fine = parts.features(normalised)
        logits = parts.classifier(features.mean((2, 3)))
        maps = _class_maps(parts, fine)
    count = min(classes, logits.shape[1])
    likeliest = logits.sort(dim=1, descending=True, stable=True).indices[:, :count]
    maps = maps.take_along_dim(likeliest[:, :, None, None], 1)
    ranks = maps.new_tensor(ranking_weights(count) if weights is None else weights[:count])
    maps = _scaled(F.interpolate(maps, size=images.shape[2:], mode="bilinear", align_corners=False))
    return _scaled(torch.einsum("n,bnhw->bhw", ranks, maps)).to(images.dtype)


def check_network(network: nn.Module) -> None:
    """Refuses a network without the attributes that `class_activation_maps` reads."""
    parts = (getattr(network, name, None) for name in ("normalise", "features", "classifier"))
    if not all(map(isinstance, parts, (nn.Module, nn.Module, nn.Linear))):
        problem = f"a {type(network).__name__} has no class activation maps"
        raise UsageError(problem, "give a network with normalise, features and, behind an average, a linear classifier")


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[Any]:
    """The network, checked, in evaluation mode as long as it is used."""
    check_network(network)
    with evaluating(network):
        yield network


def _as_weights(images: Images, parts: Any) -> Images:
    """The images in the network's own precision."""
    return images.to(parts.classifier.weight.dtype)


def _pools_last(features: nn.Module) -> bool:
    return isinstance(features, nn.Sequential) and len(features) > 1 and isinstance(features[-1], nn.MaxPool2d)


def _class_maps(parts: Any, features: Tensor) -> ClassMaps:
    return torch.einsum("bkhw,ck->bchw", features, parts.classifier.weight)


def _scaled(maps: Tensor) -> Tensor:
    """Each `H W` map taken linearly to [0, 1]; 0 where it is the same all over, but for rounding."""
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    rounding = 16 * torch.finfo(maps.dtype).eps * torch.maximum(low.abs(), high.abs())
    flat = high - low <= rounding
    return torch.where(flat, 0, (maps - low) / torch.where(flat, 1, high - low))
