"""Somebody else's classifier as this package takes one: from an exported program, torchvision, Hugging Face or a file.

model = own_model("hf:microsoft/resnet-50")
defended = Defended(layer, model)
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quasinat.arrays import Images
from quasinat.errors import InputError, UsageError, did_you_mean
from quasinat.interop.hugging_face import hugging_face
from quasinat.networks import Classifier, Normalise, load_classifier, load_mobilenet

Size = tuple[int, int]  # height, width


class OwnModel(nn.Module):
    """Images `B C H W` in [0, 1] to logits: what a network wants of its input is done inside.

    Args:
        network: normalised images to logits `B classes`.
        mean, deviation: of each channel, or one for all: the network sees (x - mean) / deviation.
        size: height and width that images of another size are brought to (bilinear, antialiased); where it is None the
            network takes any.
        flipped: the network wants the channels in the other order, as BGR; `mean` and `deviation` are then in that.
        channels, classes: of the images and the logits, where they are known.
        labels: names of the classes by number, where they are known.

    Raises:
        UsageError: a deviation that is not above zero, or a mean that is no number.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        mean: Sequence[float] = (0.0,),
        deviation: Sequence[float] = (1.0,),
        size: Size | None = None,
        flipped: bool = False,
        channels: int | None = None,
        classes: int | None = None,
        labels: Mapping[int, str] | None = None,
    ) -> None:
        super().__init__()
        if not all(value > 0 and math.isfinite(value) for value in deviation) or not all(map(math.isfinite, mean)):
            raise UsageError(
                f"mean {tuple(mean)}, deviation {tuple(deviation)}", "give finite ones, and deviations above 0"
            )
        self.network = network.requires_grad_(False)
        self.size, self.flipped, self.channels, self.classes = size, flipped, channels, classes
        self.labels = dict(labels or {})
        self.normalise = Normalise(max(len(mean), len(deviation)))
        self.normalise.mean.copy_(torch.tensor(tuple(mean)).view(-1, 1, 1))
        self.normalise.deviation.copy_(torch.tensor(tuple(deviation)).view(-1, 1, 1))

    def forward(self, images: Images) -> Tensor:
        """The network's logits, differentiable in the images."""
        if self.size is not None and tuple(images.shape[-2:]) != self.size:
            images = F.interpolate(images, self.size, mode="bilinear", antialias=True, align_corners=False)
        if self.flipped:
            images = images.flip(1)
        logits: Tensor = self.network(self.normalise(images))
        return logits


class Program(nn.Module):
    """An exported program, which has no modes of training and evaluation to be put in."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def train(self, mode: bool = True) -> "Program":
        """The program as it is: it computes what it did when it was exported."""
        self.training = mode
        return self

    def forward(self, images: Tensor) -> Tensor:
        answer: Tensor = self.module(images)
        return answer


def own_model(name: str, **wanted: Any) -> OwnModel:
    """A classifier by where it comes from, in eval mode on the CPU, its parameters held fixed.

    Args:
        name: a file `MODEL.pt2` of `torch.export.save`, a file of `quasinat train`, or a key of `SOURCES` and what it
            is there, as in `torchvision:resnet50`, `hf:microsoft/resnet-50` or `hf:FOLDER`, `mobilenet:FILE`.
        wanted: `mean`, `deviation` and `size` of an `OwnModel`, in place of what the source says.

    A `.pt2` is a program: load none that you would not run.

    Raises:
        UsageError: an unknown source, or one whose package is not installed.
        InputError: there is no such model, or it cannot be used.
    """
    kind, place = _source(name)
    network, said = SOURCES[kind](place)
    model = OwnModel(network, **said | {key: value for key, value in wanted.items() if value is not None}).eval()
    if model.size is not None:
        model.classes = classes_of(model, torch.full((1, model.channels or 3, *model.size), 0.5))
    return model


def classifier_named(name: str) -> nn.Module:
    """A classifier by the names of `own_model`: a file of this package as the network that it holds, with its card.

    Raises:
        UsageError, InputError: see `own_model`.
    """
    model = own_model(name)
    return model.network if _source(name)[0] in OURS else model


def _source(name: str) -> tuple[str, str]:
    """A key of `SOURCES`, and what the rest of the name says there."""
    kind, _, place = name.partition(":")
    if kind not in SOURCES and (name.endswith((".pt2", ".safetensors")) or Path(name).is_file()):
        kind, place = "pt2" if name.endswith(".pt2") else "quasinat", name
    if kind not in SOURCES or not place:
        known = [f"{source}:..." for source in SOURCES]
        problem = f"{name!r} is neither a file .pt2 or .safetensors nor a model by its source"
        raise UsageError(problem, did_you_mean(name, known))
    return kind, place


@torch.no_grad()
def classes_of(model: nn.Module, images: Images) -> int:
    """The number of logits that a classifier has for such images.

    Raises:
        InputError: it cannot take them, or what it makes of one is no row of logits.
    """
    try:
        logits = model(images[:1])
    except Exception as error:  # whatever somebody's network raises
        said = " ".join(str(error).split())[:200]
        shape = "x".join(map(str, images.shape[1:]))
        raise InputError(f"the classifier cannot take an image of {shape} ({said})", "name another --size") from None
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 1 or not logits.is_floating_point():
        made = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(f"the classifier makes {made} of one image", "give one of logits B classes")
    return int(logits.shape[1])


def _exported(place: str) -> tuple[nn.Module, dict[str, Any]]:
    path = Path(place)
    if not path.is_file():
        raise InputError(f"there is no file {path}", "write one with torch.export.save")
    try:
        program = torch.export.load(path)
        (inside,) = program.graph_signature.user_inputs
        shape = next(node.meta["val"].shape for node in program.graph.nodes if node.name == inside)
    except Exception as error:  # whatever its reader raises: the file is not ours
        remedy = "write it with torch.export.save, of a module that takes one batch of images"
        raise InputError(f"{path} holds no such program ({type(error).__name__})", remedy) from None
    if len(shape) != 4 or isinstance(shape[0], int):
        remedy = 'export it with dynamic_shapes=({0: torch.export.Dim("batch")},)'
        raise InputError(f"{path} takes {tuple(shape)}, not a batch of any number of images", remedy)
    fixed = tuple(shape[2:]) if all(isinstance(side, int) for side in shape[2:]) else None
    return Program(program.module()), {"size": fixed, "channels": shape[1] if isinstance(shape[1], int) else None}


def _torchvision(place: str) -> tuple[nn.Module, dict[str, Any]]:
    try:
        from torchvision import models
    except Exception as error:  # beside another build of torch it fails with any of several errors
        raise UsageError(f"torchvision cannot be imported ({error})", "install one that fits this torch") from None
    known = models.list_models(module=models)
    if place not in known:
        raise InputError(f"torchvision has no classifier {place!r}", did_you_mean(place, known))
    weights = models.get_model_weights(place).DEFAULT
    asks = weights.transforms()
    side = asks.crop_size[0]
    said = {"mean": asks.mean, "deviation": asks.std, "size": (side, side), "channels": 3}
    return models.get_model(place, weights=weights), {**said, "labels": dict(enumerate(weights.meta["categories"]))}


def _of_ours(load: Callable[[str], Classifier]) -> Callable[[str], tuple[nn.Module, dict[str, Any]]]:
    def read(place: str) -> tuple[nn.Module, dict[str, Any]]:
        network = load(place)
        return network, {"channels": network.channels, "classes": network.classes}

    return read


OURS = {"quasinat": load_classifier, "mobilenet": load_mobilenet}
SOURCES: dict[str, Callable[[str], tuple[nn.Module, dict[str, Any]]]] = {
    "pt2": _exported,
    "torchvision": _torchvision,
    "hf": hugging_face,
    **{kind: _of_ours(load) for kind, load in OURS.items()},
}
"""Where a classifier may come from: the network, and what it wants of its images."""
