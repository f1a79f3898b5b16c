"""What the demo page shows, as tensors: the attacked image, both projections and codes, what the classifiers say."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Event

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quasinat.arrays import Image, Images, Logits
from quasinat.attacks import ATTACKS, Dissimilarity
from quasinat.attacks.model_access import evaluating
from quasinat.defended import Defended
from quasinat.errors import InputError
from quasinat.layer import SparseTransformationLayer
from quasinat.report.code_sheet import Coded, code_image
from quasinat.serving.demo_options import ATTACKS_SHOWN, BPDA, GRAY, NONE, TRUE, DemoOptions
from quasinat.sparse_coding import Identity, Implicit

KEPT = 64  # attacked images that are remembered; at most 96 x 96 pixels each
Probabilities = Float[Tensor, " classes"]


@dataclass(frozen=True)
class Exhibit:
    """The layer of the page, and the classifiers that it has.

    Attributes:
        layer: of grey or RGB images.
        model: images `B C H W` in [0, 1] to logits, trained on T of images; None if there is none.
        plain_model: the same, trained on images as they are.
        labels: the names of the classes, in their order.
    """

    layer: SparseTransformationLayer
    model: nn.Module | None = None
    plain_model: nn.Module | None = None
    labels: Sequence[str] | None = None

    @property
    def threats(self) -> list[str]:
        """What can be attacked here, of `demo_options.THREATS`."""
        return [GRAY] * (self.plain_model is not None) + [TRUE, BPDA] * (self.model is not None)


@dataclass(frozen=True)
class Shown:
    """Everything of one image.

    Attributes:
        clean, attacked: each with T of it and its codes.
        plain: the plain classifier's probabilities of `clean`, `attacked` and `projected`, T of the attacked image;
            empty without it.
        defended: the defended classifier's of `clean` and `attacked`; empty without it.
    """

    clean: Coded
    attacked: Coded
    plain: dict[str, Probabilities]
    defended: dict[str, Probabilities]

    @property
    def linf(self) -> float:
        """The largest change of a pixel, in [0, 1]."""
        return float((self.attacked.image - self.clean.image).abs().max())

    @property
    def dissimilarity(self) -> float:
        """The paper's L2-dissimilarity of the attacked image (section 5.1); infinite where a black image moved."""
        return float(Dissimilarity(0.0).measure(self.clean.image[None], self.attacked.image[None]))


@dataclass
class Attacked:
    """The last `KEPT` attacked images, so that a new lambda does not repeat an attack that does not see the layer."""

    kept: OrderedDict[tuple[object, ...], Image] = field(default_factory=OrderedDict)

    def image(self, exhibit: Exhibit, image: Image, options: DemoOptions, over: Event) -> Image:
        """`attack_image`, remembered."""
        seen = None if options.threat in (None, GRAY) else options.sparsity
        pixels = image.cpu().numpy().tobytes()
        key = (pixels, image.shape, options.attack, options.threat, options.budget, seen)
        if key not in self.kept:
            self.kept[key] = attack_image(exhibit, image, options, over)
        self.kept.move_to_end(key)
        while len(self.kept) > KEPT:
            self.kept.popitem(last=False)
        return self.kept[key]


class Undecided(nn.Module):
    """Two equal logits for every image: what random noise, which learns nothing from a network, is given."""

    def forward(self, images: Images) -> Logits:
        """Zeros, `B 2`."""
        return images.new_zeros(len(images), 2)


def victim(exhibit: Exhibit, options: DemoOptions) -> nn.Module:
    """What the attack is run on: `THREATS` of the options, with the layer at their lambda."""
    if options.threat is None:
        return Undecided()
    if options.threat == GRAY:
        assert exhibit.plain_model is not None  # the options were checked against `threats`
        return exhibit.plain_model
    assert exhibit.model is not None
    defended = Defended(exhibit.layer.with_sparsity(options.sparsity), exhibit.model)
    return defended.with_adjoint(Implicit() if options.threat == TRUE else Identity())


class GivenUpError(Exception):
    """An attack ended because nobody waits for it."""


def attack_image(exhibit: Exhibit, image: Image, options: DemoOptions, over: Event) -> Image:
    """The attacked image, `C H W`: moved away from the class that the attacked classifier itself gives the image.

    Raises:
        GivenUpError: `over` was set meanwhile; the attack ends when it asks its classifier next.
    """
    if options.attack == NONE:
        return image
    model, images = victim(exhibit, options), image[None]
    attack, settings = ATTACKS[options.attack], ATTACKS_SHOWN[options.attack]
    asked = model.register_forward_pre_hook(lambda *_: _go_on(over))
    try:
        own = logits_of(model, images, "the attacked classifier").argmax(1)
        return attack(model, images, own, budget=options.budget, **settings).images[0]
    finally:
        asked.remove()


def _go_on(over: Event) -> None:
    if over.is_set():
        raise GivenUpError


def show(exhibit: Exhibit, image: Image, options: DemoOptions, attacked: Image) -> Shown:
    """Both images through the layer at the options' lambda, and what each classifier says.

    Raises:
        InputError: the layer cannot code, or a classifier not read, such an image.
    """
    layer = exhibit.layer.with_sparsity(options.sparsity)
    clean = code_image(layer, image)
    moved = clean if torch.equal(attacked, image) else code_image(layer, attacked)
    plain, defended = {}, {}
    if exhibit.plain_model is not None:
        seen = {"clean": image, "attacked": attacked, "projected": moved.seen}
        plain = _probabilities(exhibit.plain_model, seen, "the plain classifier")
    if exhibit.model is not None:
        seen = {"clean": clean.seen, "attacked": moved.seen}
        defended = _probabilities(exhibit.model, seen, "the defended classifier")
    return Shown(clean, moved, plain, defended)


def _probabilities(model: nn.Module, seen: dict[str, Image], who: str) -> dict[str, Probabilities]:
    rows = logits_of(model, torch.stack(list(seen.values())), who).softmax(1)
    return dict(zip(seen, rows, strict=True))


@torch.no_grad()
def logits_of(model: nn.Module, images: Images, who: str) -> Logits:
    """The logits of a classifier in evaluation mode.

    Raises:
        InputError: it cannot take images of this size.
    """
    try:
        with evaluating(model):
            logits: Logits = model(images)
    except RuntimeError as error:
        height, width = images.shape[-2:]
        reason = str(error).splitlines()[0]
        problem = f"{who} cannot read an image of {width} x {height} pixels ({reason})"
        raise InputError(problem, "choose another size") from None
    return logits
