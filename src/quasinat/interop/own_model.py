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
from quasinat.defended import LogitsOf
from quasinat.errors import InputError, UsageError, did_you_mean
from quasinat.networks import Normalise, load_classifier, load_mobilenet

Size = tuple[int, int]  # height, width
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # as torchvision's weights want them


class OwnModel(nn.Module):
    """Images `B C H W` in [0, 1] to logits: what a network wants of its input is done inside.

    Args:
        network: normalised images to logits `B classes`.
        mean, deviation: of each channel, or one for all: the network sees (x - mean) / deviation.
        size: height and width that images of another size are brought to (bilinear, antialiased); where it is None the
            network takes any.
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
        labels: Mapping[int, str] | None = None,
    ) -> None:
        super().__init__()
        if not all(value > 0 and math.isfinite(value) for value in deviation) or not all(map(math.isfinite, mean)):
            raise UsageError(
                f"mean {tuple(mean)}, deviation {tuple(deviation)}", "give finite ones, and deviations above 0"
            )
        self.network = network.requires_grad_(False)
        self.size = size
        self.labels = dict(labels or {})
        self.normalise = Normalise(max(len(mean), len(deviation)))
        self.normalise.mean.copy_(torch.tensor(tuple(mean)).view(-1, 1, 1))
        self.normalise.deviation.copy_(torch.tensor(tuple(deviation)).view(-1, 1, 1))

    def forward(self, images: Images) -> Tensor:
        """The network's logits, differentiable in the images."""
        if self.size is not None and tuple(images.shape[-2:]) != self.size:
            images = F.interpolate(images, self.size, mode="bilinear", antialias=True, align_corners=False)
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
        name: a file `MODEL.pt2` of `torch.export.save`, or a key of `SOURCES` and what it is there, as in
            `torchvision:resnet50`, `hf:microsoft/resnet-50` or `hf:FOLDER`, `quasinat:FILE`, `mobilenet:FILE`.
        wanted: `mean`, `deviation` and `size` of an `OwnModel`, in place of what the source says.

    A `.pt2` is a program: load none that you would not run.

    Raises:
        UsageError: an unknown source, or one whose package is not installed.
        InputError: there is no such model, or it cannot be used.
    """
    kind, _, place = name.partition(":")
    if kind not in SOURCES and name.endswith(".pt2"):
        kind, place = "pt2", name
    if kind not in SOURCES or not place:
        known = [f"{source}:..." for source in SOURCES]
        raise UsageError(f"{name!r} is neither a file .pt2 nor a model by its source", did_you_mean(name, known))
    network, said = SOURCES[kind](place)
    return OwnModel(network, **said | {key: value for key, value in wanted.items() if value is not None}).eval()


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
    return Program(program.module()), {"size": fixed}


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
    said = {"mean": asks.mean, "deviation": asks.std, "size": (side, side)}
    return models.get_model(place, weights=weights), {**said, "labels": dict(enumerate(weights.meta["categories"]))}


def _hugging_face(place: str) -> tuple[nn.Module, dict[str, Any]]:
    try:
        from transformers import AutoModelForImageClassification
        from transformers.image_processing_base import ImageProcessingMixin
    except ImportError:
        raise UsageError("hf: needs transformers", "pip install 'quasinat[interop]'") from None
    try:  # weights that are no pickle, and no code of the repository's
        model = AutoModelForImageClassification.from_pretrained(place, use_safetensors=True, trust_remote_code=False)
        asks, _ = ImageProcessingMixin.get_image_processor_dict(place)
    except (OSError, ValueError) as error:
        problem = f"transformers finds no image classifier {place!r} ({' '.join(str(error).split())[:200]})"
        raise InputError(problem, "name one of the hub, or the folder of save_pretrained, with safetensors") from None
    normalised = asks.get("do_normalize", True)
    said = {
        "mean": asks.get("image_mean", IMAGENET_MEAN) if normalised else (0.0,),
        "deviation": asks.get("image_std", IMAGENET_DEVIATION) if normalised else (1.0,),
        "size": _size(asks),
        "labels": {int(number): str(label) for number, label in model.config.id2label.items()},
    }
    return LogitsOf(model, lambda answer: answer.logits), said


def _size(asks: Mapping[str, Any]) -> Size | None:
    """What a processor of images crops or scales them to: {"height": h, "width": w}, {"shortest_edge": s} or s."""
    given = (asks.get("crop_size") if asks.get("do_center_crop") else None) or asks.get("size")
    if isinstance(given, Mapping):
        given = (given.get("height"), given.get("width")) if "height" in given else given.get("shortest_edge")
    if isinstance(given, int):
        given = (given, given)
    sides = [side for side in given or () if isinstance(side, int) and side > 0]
    return (sides[0], sides[1]) if len(sides) == 2 else None


def _own_file(place: str) -> tuple[nn.Module, dict[str, Any]]:
    return load_classifier(place), {}


def _mobilenet(place: str) -> tuple[nn.Module, dict[str, Any]]:
    return load_mobilenet(place), {}


SOURCES: dict[str, Callable[[str], tuple[nn.Module, dict[str, Any]]]] = {
    "pt2": _exported,
    "torchvision": _torchvision,
    "hf": _hugging_face,
    "quasinat": _own_file,
    "mobilenet": _mobilenet,
}
"""Where a classifier may come from: the network, and what it wants of its images."""
