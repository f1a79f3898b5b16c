"""Checkpoints: an interrupted training ends, to the bit, as one that was not; what is damaged or foreign is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quasinat.artefact import read_artefact, write_artefact
from quasinat.errors import InputError, UsageError
from quasinat.networks import vgg
from quasinat.training import Checkpoint, minimise, train_classifier
from quasinat.training.checkpoint import digest
from quasinat.training.loop import epoch_seed

Record = list[tuple[int, float]]
ARGUMENTS: dict[str, Any] = {"count": 30, "epochs": 4, "batch_size": 7, "learning_rate": 0.01, "weight_decay": 1e-3}


def network() -> nn.Module:
    """Everything that a state can hide in: batch statistics, dropout, channels-last weights, an idle parameter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3), nn.Conv2d(8, 2, 3))
        module.register_parameter("idle", nn.Parameter(torch.ones(3)))
        return module.to(memory_format=torch.channels_last)


def run(path: Path | None, on_epoch: Callable[[int, float], None] | None = None, **changes: Any) -> nn.Module:
    module = network()
    images = torch.rand(30, 2, 8, 8, generator=torch.Generator().manual_seed(1))

    def loss(indices: Tensor, generator: torch.Generator) -> Tensor:
        clean = images[indices]
        noisy = clean + 0.1 * torch.randn(clean.shape, generator=generator)
        return F.mse_loss(module(noisy), clean[:, :, 2:-2, 2:-2])

    fingerprint = changes.pop("fingerprint", {"data": "noise"})
    checkpoint = Checkpoint(path, fingerprint) if path else None
    minimise(module, loss, **ARGUMENTS | changes, on_epoch=on_epoch, checkpoint=checkpoint)
    return module


def interrupted(path: Path, after: int, record: Record | None = None) -> None:
    def stop(epoch: int, loss: float) -> None:
        if record is not None:
            record.append((epoch, loss))
        if epoch == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(path, stop)


def same(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(value.equal(theirs[name]) for name, value in ours.items())


@pytest.mark.parametrize("after", [1, 2, 4])
def test_a_continued_training_ends_as_an_uninterrupted_one(after: int, tmp_path: Path) -> None:
    whole, continued = [], []
    path = tmp_path / "checkpoint"
    uninterrupted = run(None, lambda *both: whole.append(both))
    interrupted(path, after)
    torch.manual_seed(after)  # the global generator has no part in it
    module = run(path, lambda *both: continued.append(both))
    assert same(module, uninterrupted)
    assert continued == whole  # the epochs before the interruption are told again
    assert not module.training
    assert [parameter.requires_grad for parameter in module.parameters()] == [True] * len(list(module.parameters()))


def test_it_may_be_interrupted_again_and_again(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    for after in (1, 2, 3):
        interrupted(path, after)
    assert same(run(path), run(None))
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint"]


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    first = run(path)
    written = path.stat().st_mtime_ns
    assert same(run(path), first)
    assert path.stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"epochs": 6}, "epochs: 4, not 6"),
        ({"seed": 3}, "seed: 0, not 3"),
        ({"batch_size": 8}, "batch_size: 7, not 8"),
        ({"learning_rate": 0.02}, "learning_rate: 0.01, not 0.02"),
        ({"weight_decay": 0.0}, "weight_decay: 0.001, not 0.0"),
        ({"count": 29}, "count: 30, not 29"),
        ({"fingerprint": {"data": "other"}}, "data: noise, not other"),
        ({"fingerprint": {}}, "data: noise, not None"),
    ],
)
def test_another_trainings_checkpoint_is_refused(changes: dict[str, Any], difference: str, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    interrupted(path, 2)
    content = path.read_bytes()
    message = rf"checkpoint is the checkpoint of another training \({difference}\); delete it or name another file"
    with pytest.raises(UsageError, match=message):
        run(path, **changes)
    assert path.read_bytes() == content


def test_a_damaged_checkpoint_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    interrupted(path, 2)
    tensors, card = read_artefact(path, "checkpoint")
    whole = path.read_bytes()

    def refused(match: str) -> None:
        with pytest.raises(InputError, match=match) as error:
            run(path)
        assert "\n" not in str(error.value)
        assert str(path) in str(error.value)

    for length in (0, 5, 300, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused("checkpoint is damaged")
    write_artefact(path, "layer", tensors, card | {"kind": "layer"})
    refused("is a file of kind 'layer', not 'checkpoint'")
    for name, value, match in (
        ("module.0.bias", None, "lacks the tensor module.0.bias"),
        ("optimiser.1.exp_avg", None, "lacks the tensor optimiser.1.exp_avg"),
        ("optimiser.1.exp_avg", torch.zeros(1), r"holds optimiser.1.exp_avg of shape \(1,\)"),
        ("module.more", torch.zeros(1), "holds an unknown tensor module.more"),
    ):
        changed = {**tensors, name: value}
        write_artefact(path, "checkpoint", {k: v for k, v in changed.items() if v is not None}, card)
        refused(match)
    for change in ({"losses": []}, {"losses": [1.0] * 5}, {"losses": None}, {"position": "x"}, {"groups": []}):
        write_artefact(path, "checkpoint", tensors, card | change)
        refused("is no intact checkpoint")
    write_artefact(path, "checkpoint", tensors, card | {"arguments": None})
    refused(r"is no intact checkpoint \(no arguments\)")


def test_a_classifier_continues(tmp_path: Path) -> None:
    images = torch.rand(20, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    labels, path = torch.arange(20) % 2, tmp_path / "checkpoint"

    def trained(checkpoint: Path | None, stop: int = 0, **changes: Any) -> nn.Module:
        def on_epoch(epoch: int, _: float) -> None:
            if epoch == stop:
                raise KeyboardInterrupt

        arguments = {"epochs": 3, "batch_size": 8, "on_epoch": on_epoch, "checkpoint": checkpoint} | changes
        return train_classifier(vgg("vgg-small", classes=2, channels=1), images, labels, **arguments)

    with pytest.raises(KeyboardInterrupt):
        trained(path, 2)
    assert same(trained(path), trained(None))
    with pytest.raises(UsageError, match=r"another training \(augment: True, not False\)"):
        trained(path, augment=False)


def test_epochs_and_seeds_have_randomness_of_their_own() -> None:
    seeds = {epoch_seed(seed, epoch) for seed in range(-1, 50) for epoch in range(50)}
    assert len(seeds) == 51 * 50


def test_the_digest_is_of_values_shapes_and_types() -> None:
    values = torch.arange(12.0)
    different = [values, values + 1, values.view(3, 4), values.view(4, 3), values.long(), values.double()]
    assert len({digest(tensor) for tensor in different}) == len(different)
    assert digest(values.view(3, 4)) == digest(values.view(3, 4).t().contiguous().t())
    assert digest(values, values) != digest(values)
