"""VGG classifiers (Simonyan & Zisserman 2015) with batch normalisation and global average pooling.

The features carry torchvision's parameter names. The three large linear layers of the original are one here: they
were made for 224 px, and averaging lets the network take images of any size. Two defences are other choices of a part:
a saturating activation, and a thermometer encoding of the images in the place of their normalisation.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quasinat.arrays import Images, Logits
from quasinat.artefact import Card
from quasinat.errors import UsageError, did_you_mean
from quasinat.networks.normalise import Normalise
from quasinat.networks.saturating import SaturatedLinear
from quasinat.networks.thermometer import LEVELS, Thermometer

PLANS: dict[str, tuple[int | str, ...]] = {
    "vgg-small": (16, "M", 32, 32, "M", 64, 64, "M"),
    "vgg16": (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"),
}

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "saturating": SaturatedLinear}
ENCODINGS = ("none", "thermometer")


class VGG(nn.Module):
    """Images `B C H W` in [0, 1] to logits `B classes`; H and W at least 2 to the power of the plan's poolings.

    `plan` is a key of `PLANS`, `activation` of `ACTIVATIONS`, `encoding` one of `ENCODINGS`; `channels` are the
    images'. `card` is what the file said that it was read from; empty for a new one.

    Args:
        plan: a key of `PLANS`.
        classes: how many logits.
        channels: of the images.
        activation: a key of `ACTIVATIONS`.
        encoding: one of `ENCODINGS`.
        levels: of the thermometer, where that is the encoding.
    """

    card: Card

    def __init__(
        self,
        plan: str,
        classes: int,
        channels: int,
        *,
        activation: str = "relu",
        encoding: str = "none",
        levels: int = LEVELS,
    ) -> None:
        super().__init__()
        self.plan, self.classes, self.channels = plan, classes, channels
        self.activation, self.encoding, self.levels = activation, encoding, levels
        self.card = {}
        encoded = encoding == "thermometer"
        self.normalise: Normalise | Thermometer = Thermometer(levels) if encoded else Normalise(channels)
        layers: list[nn.Module] = []
        width = channels * levels if encoded else channels
        for entry in PLANS[plan]:
            if isinstance(entry, str):
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(width, entry, 3, padding=1), nn.BatchNorm2d(entry), ACTIVATIONS[activation]()]
                width = entry
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(width, classes)
        for module in self.features:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d) and activation == "saturating":
                # Mean 1/4 and deviation 1/2 leave six units of ten between 0 and 1, and gradients of one size in all
                # layers; with mean 0 and deviation 1 it is a third, and the gradients grow from layer to layer.
                nn.init.constant_(module.weight, 0.5)
                nn.init.constant_(module.bias, 0.25)

    @property
    def options(self) -> dict[str, Any]:
        """What it was built with besides plan, classes and channels, as JSON holds it; empty for a plain network."""
        activation = {} if self.activation == "relu" else {"activation": self.activation}
        encoded = self.encoding != "none"
        return activation | ({"encoding": self.encoding, "levels": self.levels} if encoded else {})

    def embed(self, images: Images) -> Float[Tensor, "batch features"]:
        """The averaged features in front of the last linear layer."""
        features: Tensor = self.features(self.normalise(images))
        return features.mean((2, 3))

    def forward(self, images: Images) -> Logits:
        return self.classifier(self.embed(images))


def vgg(
    plan: str,
    *,
    classes: int,
    channels: int = 3,
    seed: int = 0,
    activation: str = "relu",
    encoding: str = "none",
    levels: int = LEVELS,
) -> VGG:
    """A new network: `vgg-small` (five convolutions, 16 to 64 wide) or `vgg16` (the paper's).

    Args:
        plan: a key of `PLANS`.
        classes: number of logits.
        channels: of the images.
        seed: of the initial weights; the global generator is left as it was.
        activation: "relu", or "saturating": bounded, see `SaturatedLinear`; to be trained with `train_saturating`.
        encoding: "none", or "thermometer": the images' bits instead of their normalised values, see `thermometer`.
        levels: of the thermometer encoding, 2 to 256; of no meaning without it.

    Raises:
        UsageError: an unknown plan, activation or encoding, or an impossible number of levels.

    Examples:
        >>> import torch
        >>> import quasinat as qn
        >>> network = qn.networks.vgg("vgg-small", classes=10, channels=3, seed=0).eval()
        >>> network(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    if plan not in PLANS:
        raise UsageError(f"unknown network {plan!r}", f"choose one of: {', '.join(PLANS)}")
    for what, name, known in (("activation", activation, ACTIVATIONS), ("encoding", encoding, ENCODINGS)):
        if name not in known:
            raise UsageError(f"unknown {what} {name!r}", did_you_mean(name, list(known)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = VGG(plan, classes, channels, activation=activation, encoding=encoding, levels=levels)
        # Channels last: the faster layout on CPUs, and what tensor cores want.
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def vgg16(classes: int, channels: int = 3, seed: int = 0) -> VGG:
    """VGG-16 with batch normalisation, the paper's classifier for CIFAR-10 and ImageNet-10.

    Args:
        classes: how many logits.
        channels: of the images.
        seed: of the weights.
    """
    return vgg("vgg16", classes=classes, channels=channels, seed=seed)
