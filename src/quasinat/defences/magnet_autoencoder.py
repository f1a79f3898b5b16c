"""MagNet's denoising autoencoders (Meng & Chen, CCS 2017; their structure as in the authors' published code)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quasinat.arrays import Images
from quasinat.artefact import Card, check_state, read_artefact, write_artefact
from quasinat.attacks.checks import check_images, check_number
from quasinat.errors import InputError, UsageError, did_you_mean
from quasinat.parallel import mine
from quasinat.strata.autoencoder import positive
from quasinat.training.checkpoint import Checkpoint, digest
from quasinat.training.loop import minimise

KIND = "magnet"


@dataclass(frozen=True)
class Plan:
    """An encoder: an integer is a 3 x 3 convolution with that many filters and a sigmoid, "average" a 2 x 2 pooling.

    The decoder is its mirror image, with an upsampling for each pooling, and a last convolution gives the channels of
    the image. `noise` is the deviation of the training noise.
    """

    encoder: tuple[int | str, ...]
    noise: float

    def steps(self, channels: int) -> tuple[int | str, ...]:
        """Encoder, decoder and last convolution, in order; "up" doubles the sides."""
        decoder = ("up" if step == "average" else step for step in reversed(self.encoder))
        return (*self.encoder, *decoder, channels)


PLANS: dict[str, Plan] = {
    "cifar": Plan((3,), 0.025),
    "mnist-1": Plan((3, "average", 3), 0.1),
    "mnist-2": Plan((3,), 0.1),
}
"""The source's: all of CIFAR-10's, and MNIST's two, of its detector I and reformer and of its detector II."""


class MagnetAutoencoder(nn.Module):
    """Images `B C H W` in [0, 1] to their reconstruction, of the same shape, strictly between 0 and 1.

    Images of any size: where a plan pools, the right and lower edges are repeated up to an even size, and cropped
    again. It computes in the images' precision. Weights start as the source's do (Glorot & Bengio 2010, uniform;
    biases of zero). `card` is what the file said that it was read from; empty for a new one.

    Args:
        channels: of the images.
        plan: a key of `PLANS`.

    Raises:
        UsageError: an unknown plan.
    """

    card: Card

    def __init__(self, channels: int, plan: str = "cifar") -> None:
        super().__init__()
        if plan not in PLANS:
            raise UsageError(f"MagNet has no autoencoder {plan!r}", did_you_mean(plan, list(PLANS)))
        self.channels, self.plan = channels, plan
        self.card = {}
        widths = [step for step in PLANS[plan].steps(channels) if isinstance(step, int)]
        before = [channels, *widths[:-1]]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(into, out, 3, padding=1) for into, out in zip(before, widths, strict=True)
        )
        for name, parameter in self.named_parameters():
            if name.endswith("weight"):
                nn.init.xavier_uniform_(parameter)
            else:
                nn.init.zeros_(parameter)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def activations(self, images: Images) -> list[Tensor]:
        """What each convolution's sigmoid gives, `B filters height width`; the last is the reconstruction.

        Raises:
            InputError: images of other channels.
        """
        if images.shape[1] != self.channels:
            problem = f"the autoencoder takes images of {self.channels} channels, not {images.shape[1]}"
            raise InputError(problem, "give it images like those that it learned from")
        steps = PLANS[self.plan].steps(self.channels)
        height, width = images.shape[2:]
        multiple = 2 ** steps.count("average")
        x: Tensor = images
        if height % multiple or width % multiple:
            x = F.pad(x, (0, -width % multiple, 0, -height % multiple), mode="replicate")
        outputs: list[Tensor] = []
        convolutions = iter(self.convolutions)
        for step in steps:
            if step == "average":
                x = F.avg_pool2d(x, 2)
            elif step == "up":
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            else:
                weight, bias = next(convolutions).parameters()
                x = F.conv2d(x, weight.to(x.dtype), bias.to(x.dtype), padding=1).sigmoid()
                outputs.append(x)
        return [*outputs[:-1], x[:, :, :height, :width]]

    def forward(self, images: Images) -> Images:
        """The reconstruction."""
        return self.activations(images)[-1]


def learn_magnet(
    images: Images,
    *,
    plan: str = "cifar",
    noise: float | None = None,
    regularisation: float = 1e-9,
    epochs: int = 20,
    batch_size: int = 32,
    learning_rate: float = 0.1,
    seed: int = 0,
    on_epoch: Callable[[int, float], None] | None = None,
    checkpoint: Path | None = None,
) -> MagnetAutoencoder:
    """Learns to give the images back from noisy copies of them, by mean squared error (Meng & Chen 2017).

    Args:
        images: `B C H W` in [0, 1], training images only; of them, those that a detector will be calibrated on are to
            be left out.
        plan: a key of `PLANS`.
        noise: deviation of the Gaussian noise, on the scale of [0, 1]; the noisy copies are clipped to [0, 1]. `None`
            for the plan's, which is the source's.
        regularisation: weight of the sum of squares of all activations, averaged over the images; the default and the
            choice of activations, not weights, are those of the source's code.
        epochs, batch_size, learning_rate: of `minimise`; the rate is the peak.
        seed: of weights, batches and noise.
        on_epoch: called with the epoch, from 1, and its mean loss.
        checkpoint: a file that keeps the state after every epoch; started again, the learning continues from it.

    What differs from the source, and why: it takes 400 epochs (100 on MNIST) of Adam at a constant rate of 1e-3, in
    batches of 256. One cycle up to a higher rate is quicker: after 8,000 batches of 32 CIFAR-10 images the error on
    other images was 0.0023 at the source's rate and 0.0012 with the default. `epochs=400, batch_size=256,
    learning_rate=1e-3` are as many steps as the source's, in one cycle. The noise is drawn afresh in every epoch, not
    once for all of them. Some versions of the source's library sum the regularisation over the images of a batch; it
    hardly matters either way.

    Raises:
        UsageError: an unknown plan, a negative noise or regularisation.
        InputError: images that are not `B C H W`, finite and in [0, 1], or fewer than two of them.
    """
    check_images(images)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = MagnetAutoencoder(images.shape[1], plan).to(images.device)
    deviation = PLANS[plan].noise if noise is None else noise
    check_number("noise", deviation, zero=True)
    check_number("regularisation", regularisation, zero=True)

    def loss(indices: Tensor, generator: torch.Generator) -> Tensor:
        clean = images[mine(indices)]
        drawn = mine(torch.randn(len(indices), *clean.shape[1:], generator=generator))
        noisy = clean + deviation * drawn.to(clean)
        activations = network.activations(noisy.clamp(0, 1))
        squares = torch.stack([part.square().sum() for part in activations]).sum() / len(clean)
        return F.mse_loss(activations[-1], clean) + regularisation * squares

    kept = None
    if checkpoint:
        own = {"training": KIND, "plan": plan, "noise": deviation, "regularisation": regularisation}
        kept = Checkpoint(checkpoint, {**own, "data": digest(images)})
    minimise(
        network,
        loss,
        count=len(images),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        on_epoch=on_epoch,
        checkpoint=kept,
    )
    return network


def save_magnet(autoencoder: MagnetAutoencoder, path: str | Path, provenance: Mapping[str, Any]) -> None:
    """Writes an artefact of kind "magnet", whole or not at all.

    Args:
        autoencoder: MagNet's.
        path: of the file to write.
        provenance: how it was learned (data, noise, epochs, seed, losses...), anything that JSON holds;
            `card["provenance"]` once loaded.
    """
    settings = {"channels": autoencoder.channels, "plan": autoencoder.plan}
    write_artefact(Path(path), KIND, autoencoder.state_dict(), {"settings": settings, "provenance": dict(provenance)})


def load_magnet(path: str | Path) -> MagnetAutoencoder:
    """Reads what `save_magnet` wrote, in eval mode on the CPU; its `card` is the file's.

    Args:
        path: of the file.

    Raises:
        InputError: the file is missing, damaged, or holds no autoencoder of MagNet's.
    """
    path = Path(path)
    tensors, card = read_artefact(path, KIND)
    settings = card.get("settings")
    channels = positive(settings, "channels", path)
    plan = settings.get("plan") if isinstance(settings, dict) else None
    if plan not in list(PLANS):
        raise InputError(f"{path} is of an unknown plan {plan!r}", f"learn one of: {', '.join(PLANS)}")
    with torch.device("meta"):  # shapes only, so that a damaged card costs no memory
        blank = MagnetAutoencoder(channels, plan).state_dict()
    check_state(path, tensors, blank)
    network = MagnetAutoencoder(channels, plan)
    network.load_state_dict(tensors)
    network.card = card
    return network.eval()
