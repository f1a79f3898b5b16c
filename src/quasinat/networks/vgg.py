"""VGG classifiers (Simonyan & Zisserman 2015) with batch normalisation and global average pooling.

The features carry torchvision's parameter names. The three large linear layers of the original are one here: they
were made for 224 px, and averaging lets the network take images of any size.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quasinat.arrays import Images, Logits
from quasinat.artefact import Card
from quasinat.errors import UsageError
from quasinat.networks.normalise import Normalise

PLANS: dict[str, tuple[int | str, ...]] = {
    "vgg-small": (16, "M", 32, 32, "M", 64, 64, "M"),
    "vgg16": (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"),
}


class VGG(nn.Module):
    """Images `B C H W` in [0, 1] to logits `B classes`; H and W at least 2 to the power of the plan's poolings.

    `plan` is a key of `PLANS`. `card` is what the file said that it was read from; empty for a new one.
    """

    card: Card

    def __init__(self, plan: str, classes: int, channels: int) -> None:
        super().__init__()
        self.plan, self.classes, self.channels = plan, classes, channels
        self.card = {}
        self.normalise = Normalise(channels)
        layers: list[nn.Module] = []
        width = channels
        for entry in PLANS[plan]:
            if isinstance(entry, str):
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(width, entry, 3, padding=1), nn.BatchNorm2d(entry), nn.ReLU()]
                width = entry
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(width, classes)
        for module in self.features:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def embed(self, images: Images) -> Float[Tensor, "batch features"]:
        """The averaged features in front of the last linear layer."""
        features: Tensor = self.features(self.normalise(images))
        return features.mean((2, 3))

    def forward(self, images: Images) -> Logits:
        return self.classifier(self.embed(images))


def vgg(plan: str, *, classes: int, channels: int = 3, seed: int = 0) -> VGG:
    """A new network: `vgg-small` (five convolutions, 16 to 64 wide) or `vgg16` (the paper's).

    Args:
        plan: a key of `PLANS`.
        classes: number of logits.
        channels: of the images.
        seed: of the initial weights; the global generator is left as it was.
    """
    if plan not in PLANS:
        raise UsageError(f"unknown network {plan!r}", f"choose one of: {', '.join(PLANS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # Channels last: the faster layout on CPUs, and what tensor cores want.
        return VGG(plan, classes, channels).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def vgg16(classes: int, channels: int = 3, seed: int = 0) -> VGG:
    """VGG-16 with batch normalisation, the paper's classifier for CIFAR-10 and ImageNet-10."""
    return vgg("vgg16", classes=classes, channels=channels, seed=seed)
