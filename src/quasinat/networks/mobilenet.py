"""MobileNetV2 (Sandler et al. 2018, table 2), the classifier of the tables on ImageNet's 1000 classes.

Batch normalisation is folded into the convolutions, and the images are brought to [-1, 1] inside, so that the weights
of a network that was trained with TensorFlow can be read from a file by its path.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from quasinat.arrays import Images, Logits
from quasinat.artefact import Card, check_tensors
from quasinat.errors import InputError
from quasinat.files import read_tensors

BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Of each group of blocks: expansion, output channels, repeats, stride of the first (the paper's table 2)."""
FEATURES = 1280
_LARGEST = 2**16


class SameConvolution(nn.Conv2d):
    """A convolution that pads as TensorFlow's SAME does, an odd pixel below and on the right; then ReLU6 or nothing."""

    def __init__(
        self, channels: int, out: int, size: int = 1, stride: int = 1, *, groups: int = 1, relu: bool = True
    ) -> None:
        super().__init__(channels, out, size, stride, groups=groups)
        self.relu = relu
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]

    def forward(self, input: Tensor) -> Tensor:
        size, stride = self.kernel_size[0], self.stride[0]
        missing = [max((-(-side // stride) - 1) * stride + size - side, 0) for side in reversed(input.shape[-2:])]
        padded = F.pad(input, [part for each in missing for part in (each // 2, each - each // 2)])
        convolved = F.conv2d(padded, self.weight, self.bias, self.stride, groups=self.groups)
        return F.relu6(convolved) if self.relu else convolved


class InvertedResidual(nn.Module):
    """A block (section 3.3): 1 x 1 to more channels, 3 x 3 on each, 1 x 1 to few without activation.

    What it makes is added to its input where the shapes agree.
    """

    def __init__(self, channels: int, out: int, expansion: int, stride: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.expand = SameConvolution(channels, wide) if expansion > 1 else nn.Identity()
        self.depthwise = SameConvolution(wide, wide, 3, stride, groups=wide)
        self.project = SameConvolution(wide, out, relu=False)
        self.residual = stride == 1 and channels == out

    def forward(self, values: Tensor) -> Tensor:
        made: Tensor = self.project(self.depthwise(self.expand(values)))
        return values + made if self.residual else made


class Signed(nn.Module):
    """[0, 1] to [-1, 1]."""

    def forward(self, images: Images) -> Images:
        return 2 * images - 1


class MobileNetV2(nn.Module):
    """Images `B 3 H W` in [0, 1], of at least 32 pixels a side and best 224, to logits `B classes`.

    `card` is what the file said that it was read from; empty for a new one. As a VGG it can be taken apart into
    `normalise`, `features` and, behind their average, `classifier`.
    """

    card: Card

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.classes, self.channels = classes, 3
        self.card = {}
        self.normalise = Signed()
        self.stem = SameConvolution(3, 32, 3, 2)
        blocks, channels = [], 32
        for expansion, out, repeats, stride in BLOCKS:
            for index in range(repeats):
                blocks.append(InvertedResidual(channels, out, expansion, 1 if index else stride))
                channels = out
        self.blocks = nn.Sequential(*blocks)
        self.head = SameConvolution(channels, FEATURES)
        self.classifier = nn.Linear(FEATURES, classes)

    @property
    def features(self) -> nn.Sequential:
        """All convolutions in their order, on normalised images."""
        return nn.Sequential(self.stem, *self.blocks, self.head)

    def embed(self, images: Images) -> Float[Tensor, "batch features"]:
        """The averaged features in front of the last linear layer."""
        features: Tensor = self.features(self.normalise(images))
        return features.mean((2, 3))

    def forward(self, images: Images) -> Logits:
        return self.classifier(self.embed(images))


def mobilenet(classes: int = 1000, seed: int = 0) -> MobileNetV2:
    """A new network; the global generator is left as it was.

    Args:
        classes: how many logits.
        seed: of the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # Channels last: the faster layout on CPUs, and what tensor cores want.
        return MobileNetV2(classes).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def load_mobilenet(path: str | Path) -> MobileNetV2:
    """Reads weights from a safetensors file, in eval mode and float32 on the CPU; `card` is the file's own metadata.

    Args:
        path: holds `stem`, `blocks.N.expand | depthwise | project`, `head` and `classifier`, each a `weight` and a
            `bias`, in any floating-point type; as many classes as the classifier's rows.

    Raises:
        InputError: the file is missing, damaged, or its tensors are not those.
    """
    path = Path(path)
    tensors, metadata = read_tensors(path)
    rows = len(tensors["classifier.weight"]) if tensors.get("classifier.weight", torch.empty(())).dim() else 0
    if not 0 < rows < _LARGEST:
        raise InputError(f"{path} holds no MobileNetV2 (no classifier.weight)", "pass a file of its weights")
    with torch.device("meta"):
        blank = MobileNetV2(rows).state_dict()
    check_tensors(path, tensors, {name: tuple(value.shape) for name, value in blank.items()})
    for name, value in tensors.items():
        if not value.is_floating_point():
            raise InputError(f"{path} holds {name} as {value.dtype}", "pass a file of floating-point weights")
    network = mobilenet(rows)
    network.load_state_dict({name: value.float() for name, value in tensors.items()})
    network.card = dict(metadata)
    return network.eval()


def with_new_head(network: MobileNetV2, classes: int) -> MobileNetV2:
    """A copy for other classes, to be trained: its last layer is all zeros, which gives every class the same chance.

    Args:
        network: of any classes.
        classes: how many the copy has.
    """
    made = of_classes(network, torch.zeros(classes, dtype=torch.int64))
    nn.init.zeros_(made.classifier.weight)
    nn.init.zeros_(made.classifier.bias)
    return made


def of_classes(network: MobileNetV2, classes: Tensor) -> MobileNetV2:
    """A copy that tells only some classes apart: these rows of the last layer, in this order.

    Args:
        network: of more classes.
        classes: which of them, int64.
    """
    made = mobilenet(len(classes))
    kept = {name: value for name, value in network.state_dict().items() if not name.startswith("classifier.")}
    last = {f"classifier.{name}": value[classes] for name, value in network.classifier.state_dict().items()}
    made.load_state_dict(kept | last)
    made.card = network.card
    return made.train(network.training)
