"""The one training loop: AdamW under a one-cycle schedule, seeded batches, any loss on a batch of indices."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from quasinat.errors import InputError, UsageError


def batches(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Shuffled batches of indices; a last batch of one, which batch normalisation cannot take, is left out."""
    for indices in torch.randperm(count, generator=generator).split(size):
        if len(indices) > 1:
            yield indices


def minimise(
    module: nn.Module,
    loss: Callable[[Tensor, torch.Generator], Tensor],
    *,
    count: int,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float = 0.0,
    seed: int = 0,
    on_epoch: Callable[[int, float], None] | None = None,
) -> None:
    """Trains `module` in place and leaves it in eval mode.

    Args:
        module: its parameters are optimised.
        loss: of a batch of indices into the training set and a generator for its own randomness.
        count: size of the training set.
        epochs, batch_size: passes over it, in shuffled batches.
        learning_rate: the peak of the one-cycle schedule (Smith & Topin 2018).
        weight_decay: of AdamW.
        seed: of the batches and of the loss's randomness.
        on_epoch: called with the epoch, from 1, and its mean loss.

    Raises:
        InputError: fewer than two training images, or the loss stopped being finite.
        UsageError: batches of fewer than two images.
    """
    if count < 2:
        raise InputError(f"{count} training images are too few to train on", "give at least two")
    if batch_size < 2:
        raise UsageError(f"batches of {batch_size} are too small to train on", "ask for at least two images a batch")
    generator = torch.Generator().manual_seed(seed)
    per_epoch = sum(1 for _ in batches(count, batch_size, torch.Generator()))
    optimiser = torch.optim.AdamW(module.parameters(), lr=learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=max(2, epochs * per_epoch))
    module.train()
    for epoch in range(1, epochs + 1):
        total = torch.zeros(())
        for indices in batches(count, batch_size, generator):
            optimiser.zero_grad(set_to_none=True)
            value = loss(indices, generator)
            value.backward()
            optimiser.step()
            schedule.step()
            total += value.detach().cpu() / per_epoch
        if not bool(total.isfinite()):
            raise InputError("the training loss is no longer finite", "lower the learning rate or check the images")
        if on_epoch:
            on_epoch(epoch, float(total))
    module.eval()
