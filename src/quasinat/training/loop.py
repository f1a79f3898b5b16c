"""The one training loop: AdamW under a one-cycle schedule, seeded batches, any loss on a batch of indices."""

import hashlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from quasinat.errors import InputError, UsageError
from quasinat.parallel import mine, ranks, summed, trained_together
from quasinat.training.checkpoint import Checkpoint, resume, write_checkpoint


def batches(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Shuffled batches of indices.

    A last batch of one, which batch normalisation cannot take, is left out, as is one of fewer images than processes.
    """
    for indices in torch.randperm(count, generator=generator).split(size):
        if len(indices) >= max(2, ranks()):
            yield indices


def epoch_seed(seed: int, epoch: int) -> int:
    """The seed of one epoch's randomness; a run that continues needs none of the earlier epochs' draws."""
    return int.from_bytes(hashlib.sha256(f"{seed} {epoch}".encode()).digest()[:4])


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
    checkpoint: Checkpoint | None = None,
) -> None:
    """Trains `module` in place and leaves it in eval mode.

    Several processes that call it with the same arguments share each batch, their gradients are averaged, and all of
    them end with the same weights: those that one would have, up to rounding, if the loss draws for the whole batch and
    then takes its share, see `parallel.mine`.

    With a checkpoint, the state is written after every epoch; a run that is started again with the same arguments
    continues from it and ends with the weights, to the bit, of one that was never interrupted.

    Args:
        module: its parameters are optimised.
        loss: of a batch of indices into the training set and a generator for its own randomness; the mean over this
            process's share of them.
        count: size of the training set.
        epochs, batch_size: passes over it, in shuffled batches.
        learning_rate: the peak of the one-cycle schedule (Smith & Topin 2018).
        weight_decay: of AdamW.
        seed: of the batches and of the loss's and the module's randomness, each epoch's its own.
        on_epoch: called with the epoch, from 1, and its mean loss; at once for those that a checkpoint holds.
        checkpoint: where the state is kept.

    Raises:
        InputError: fewer than two training images, the loss stopped being finite, or the checkpoint is damaged.
        UsageError: batches of fewer than two images or than processes, or the checkpoint is of a training with other
            arguments.
    """
    if count < 2:
        raise InputError(f"{count} training images are too few to train on", "give at least two")
    if batch_size < 2:
        raise UsageError(f"batches of {batch_size} are too small to train on", "ask for at least two images a batch")
    if min(batch_size, count) < ranks():
        problem = f"batches of {min(batch_size, count)} images cannot be shared by {ranks()} processes"
        raise UsageError(problem, "ask for larger batches or start fewer processes")
    arguments = {
        "count": count,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "seed": seed,
    }
    per_epoch = sum(1 for _ in batches(count, batch_size, torch.Generator()))
    optimiser = torch.optim.AdamW(module.parameters(), lr=learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=max(2, epochs * per_epoch))
    losses = resume(checkpoint, arguments, module, optimiser, schedule) if checkpoint else []
    for done, value in enumerate(losses, 1):
        if on_epoch:
            on_epoch(done, value)
    module.train()
    with trained_together(module, loss) as shared:
        for epoch in range(len(losses) + 1, epochs + 1):
            losses.append(_epoch(module, shared, optimiser, schedule, count, batch_size, epoch_seed(seed, epoch)))
            if checkpoint:
                write_checkpoint(checkpoint, arguments, module, optimiser, schedule, losses)
            if on_epoch:
                on_epoch(epoch, losses[-1])
    optimiser.zero_grad(set_to_none=True)  # whoever differentiates the module next starts from nothing
    module.eval()


def _epoch(
    module: nn.Module,
    loss: Callable[[Tensor, torch.Generator], Tensor],
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    count: int,
    batch_size: int,
    seed: int,
) -> float:
    """One pass over the training set; its mean loss."""
    total, steps = torch.zeros(()), 0
    generator = torch.Generator().manual_seed(seed)
    devices = {parameter.device for parameter in module.parameters() if parameter.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(devices, key=str)):
        torch.manual_seed(seed + 1)  # what a module draws by itself, as dropout does, is the seed's too
        for indices in batches(count, batch_size, generator):
            optimiser.zero_grad(set_to_none=True)
            value = loss(indices, generator) * (len(mine(indices)) * ranks() / len(indices))
            value.backward()
            optimiser.step()
            schedule.step()
            total, steps = total + value.detach().cpu(), steps + 1
    total = summed(total) / ranks()
    if not bool(total.isfinite()):
        raise InputError("the training loss is no longer finite", "lower the learning rate or check the images")
    return float(total / steps)
