"""What the processes of one job do together; the one file that knows of ranks.

A job of one process needs none of it: there everything below is the identity, so that callers have no branch. Several
processes, started by `torchrun`, meet in `process_group` and see the same images; each works on its share (`mine`),
and what they find is summed. Whatever is random is drawn by all of them alike, for the whole, before the shares are
taken.
"""

import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, overload

import torch
from torch import Tensor, distributed, nn

from quasinat.errors import ProcessError

LOST = ("Connection closed by peer", "Connection reset by peer", "Timed out waiting", "NCCL")
POLL = 0.02  # seconds
TIMEOUT = timedelta(minutes=30)  # of a wait for the others: as long as one may code images that another has not

T = TypeVar("T")


def ranks() -> int:
    """How many processes the job has."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return distributed.get_rank() if ranks() > 1 else 0


def leads() -> bool:
    """Whether this process writes the job's files and speaks for it."""
    return rank() == 0


@contextmanager
def process_group() -> Iterator[None]:
    """Meets the other processes that `torchrun` started, by NCCL where each has a GPU of its own, else by gloo.

    Raises:
        ProcessError: the connection to another of them is lost.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or distributed.is_initialized():
        yield
        return
    own = int(os.environ.get("LOCAL_RANK", "0"))
    gpus = torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if gpus:
        torch.cuda.set_device(own)
    store, which, count = next(distributed.rendezvous("env://", timeout=TIMEOUT))
    named = distributed.PrefixStore(_name_of_meeting(store, which, count), store)
    backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
    distributed.init_process_group(backend, store=named, rank=which, world_size=count, timeout=TIMEOUT)
    try:
        yield
    except RuntimeError as error:
        if not any(word in str(error) for word in LOST):
            raise
        raise ProcessError(
            "another process of the job is gone", "see what it said before that, and start again"
        ) from None
    finally:
        distributed.destroy_process_group()


def _name_of_meeting(store: distributed.Store, which: int, count: int) -> str:
    """A name that no earlier meeting had, agreed on by all: the first process draws it and answers whoever is new.

    `torchrun` keeps one store through its restarts, and in it the addresses that lost processes have left.
    """
    own = secrets.token_hex(8)
    if which > 0:
        store.set(f"hello {which}", own)
        while not (answer := store.get(f"answer {which}").decode()).startswith(own):
            time.sleep(POLL)
        name = answer.removeprefix(own)
        store.set(f"agreed {which}", name)
        return name
    others = set(range(1, count))
    while others:
        for each in sorted(others):
            if store.check([f"hello {each}"]):
                store.set(f"answer {each}", store.get(f"hello {each}").decode() + own)
            if store.check([f"agreed {each}"]) and store.get(f"agreed {each}").decode() == own:
                others.remove(each)
        time.sleep(POLL)
    return own


def restarted() -> bool:
    """Whether `torchrun` has started the job anew after a process was lost: what is there is then its own."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def wait_for_all() -> None:
    """Returns once every process has come here."""
    summed(torch.zeros(1))


@contextmanager
def lead_first() -> Iterator[None]:
    """The process that leads does it first, the others after that, and none goes on before all have."""
    if not leads():
        wait_for_all()
    yield
    if leads():
        wait_for_all()
    wait_for_all()


@overload
def mine(items: Tensor) -> Tensor: ...
@overload
def mine(items: Sequence[T]) -> Sequence[T]: ...
def mine(items: Any) -> Any:
    """This process's share of things in order: one piece of them, the shares' lengths differing by one at most."""
    count, which, processes = len(items), rank(), ranks()
    return items[count * which // processes : count * (which + 1) // processes]


def owner(index: int, count: int) -> int:
    """The process whose share has the thing at `index` of `count`."""
    return next(n for n in range(ranks()) if index < count * (n + 1) // ranks())


def summed(tensor: Tensor) -> Tensor:
    """The sum over the processes, the same to the bit on each; no gradient passes."""
    if ranks() > 1:
        tensor = tensor.detach().clone().contiguous()
        distributed.all_reduce(tensor)
    return tensor


def joined(tensor: Tensor) -> Tensor:
    """The shares put together again, in the order of the processes, on each of them."""
    if ranks() == 1:
        return tensor
    parts: list[Any] = [None] * ranks()
    distributed.all_gather_object(parts, tensor.cpu())
    return torch.cat(parts).to(tensor.device)


def from_process(value: T, source: int = 0) -> T:
    """What the process `source` has, on each of them; the others' own is not looked at."""
    if ranks() == 1:
        return value
    held = [value]
    distributed.broadcast_object_list(held, src=source)
    return held[0]


def gathered(values: Mapping[str, T]) -> dict[str, T]:
    """The values of all processes, each of its own names, on the one that leads; its own on any other."""
    if ranks() == 1:
        return dict(values)
    parts: list[Any] = [None] * ranks() if leads() else []
    distributed.gather_object(dict(values), parts if leads() else None)
    return {name: value for part in (parts or [values]) for name, value in part.items()}


class Step(nn.Module):
    """A module together with its loss, so that what runs in one call is what `DistributedDataParallel` looks at."""

    def __init__(self, module: nn.Module, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        self.module = module
        self._loss = loss

    def forward(self, *arguments: Any) -> Tensor:
        """The loss."""
        return self._loss(*arguments)


@contextmanager
def trained_together(module: nn.Module, loss: Callable[..., Tensor]) -> Iterator[Callable[..., Tensor]]:
    """The loss, whose backward pass leaves the mean gradient of all processes on each, as if one had all images.

    While it lasts, the batch normalisations of the module see the images of all processes.

    Args:
        loss: runs the module; the mean over this process's images, times their number over an equal share.
    """
    step = Step(module, loss)
    if ranks() == 1:
        yield step
        return
    normalisations = [part for part in module.modules() if type(part) is nn.BatchNorm2d]
    for part in normalisations:
        part.__class__ = JointBatchNorm2d
    try:
        yield nn.parallel.DistributedDataParallel(step)
    finally:
        for part in normalisations:
            part.__class__ = nn.BatchNorm2d


class JointBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation with the mean and the deviation of all processes' images; on any device, unlike torch's."""

    def forward(self, input: Tensor) -> Tensor:
        """As of `nn.BatchNorm2d`."""
        if not self.training:
            return super().forward(input)
        mean, variance, count = _of_all(input)
        self._follow(mean.detach(), variance.detach() * count / (count - 1))
        scale = torch.rsqrt(variance + self.eps)
        if self.affine:
            scale = scale * self.weight
        shift = -mean * scale + self.bias if self.affine else -mean * scale
        return input * scale[:, None, None] + shift[:, None, None]

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Moves the running estimates, where there are some."""
        if not self.track_running_stats:
            return
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


def _of_all(input: Tensor) -> tuple[Tensor, Tensor, float]:
    """Mean and variance of each channel over the images of all processes, and over how many pixels, in one message.

    The variances are put together by Chan, Golub & LeVeque (1979), which cancels nothing.
    """
    channels, count = input.shape[1], input.numel() // input.shape[1]
    if count:
        own_variance, own_mean = torch.var_mean(input, (0, 2, 3), correction=0)
    else:  # fewer images than processes
        own_variance = own_mean = input.sum((0, 2, 3))
    told = _Told.apply(torch.cat([own_mean, own_variance, own_mean.new_tensor([float(count)])]))
    means, variances, counts = told.split([channels, channels, 1], 1)
    pixels = float(counts.detach().sum())
    share = counts / pixels
    mean = (share * means).sum(0)
    return mean, (share * (variances + (means - mean).square())).sum(0), pixels


class _Told(torch.autograd.Function):
    """What every process says, a row each, through which the gradient passes: a process gets those of its own row."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        rows = own.new_zeros(ranks(), len(own))
        rows[rank()] = own
        return summed(rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return summed(gradient)[rank()]
