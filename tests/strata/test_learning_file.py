"""A learner's state on disk: it comes back equal, dense or sparse; anything else is refused in one line."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from quasinat.artefact import read_artefact, write_artefact
from quasinat.errors import InputError, UsageError
from quasinat.sparse_coding.dictionary_problem import LearningState
from quasinat.strata.learning_file import load_state, save_state

SETTINGS: dict[str, Any] = {"sparsity": 0.1 + 0.2, "constraint": "joint", "images": 7, "learner": "Batch(steps=40)"}


@pytest.fixture
def state(generator: torch.Generator) -> LearningState:
    dense = torch.randn(3, 4, 5, 5, generator=generator)
    sparse = (dense * (dense > 1)).to_sparse().coalesce()
    assert 0 < sparse._nnz() < dense.numel()
    memory = {
        "codes-0": sparse,
        "codes-1": torch.zeros(2, 4, 5, 5).to_sparse().coalesce(),  # where nothing is active
        "cross": dense.double(),
        "dual-0": torch.randn(6, 4, 3, dtype=torch.complex64, generator=generator),
        "turn": torch.tensor(12),
    }
    return LearningState(dense, 2, (1 / 3, 0.25), (0.5, 0.4, 0.3), 1, memory)


def test_a_state_comes_back_equal(state: LearningState, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "state.safetensors"
    assert load_state(path, SETTINGS) is None
    save_state(state, path, SETTINGS)
    again = load_state(path, json.loads(json.dumps(SETTINGS)))
    assert again is not None
    assert again.filters.equal(state.filters)
    assert (again.passes, again.curve, again.held_out, again.reseeded) == (2, (1 / 3, 0.25), (0.5, 0.4, 0.3), 1)
    assert again.memory.keys() == state.memory.keys()
    for name, ours in state.memory.items():
        theirs = again.memory[name]
        assert (theirs.dtype, theirs.shape, theirs.layout) == (ours.dtype, ours.shape, ours.layout)
        if ours.is_sparse:
            assert theirs.is_coalesced()
            assert theirs.indices().equal(ours.indices())
            assert theirs.values().equal(ours.values())
        assert theirs.to_dense().equal(ours.to_dense())
    save_state(LearningState(state.filters), path, SETTINGS)  # in the place of the other
    fresh = load_state(path, SETTINGS)
    assert fresh is not None
    assert (fresh.passes, fresh.curve, fresh.memory) == (0, (), {})
    assert [entry.name for entry in path.parent.iterdir()] == ["state.safetensors"]


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"sparsity": 0.3}, "sparsity: 0.30000000000000004, not 0.3"),
        ({"constraint": "per-channel"}, "constraint: joint, not per-channel"),
        ({"images": 8}, "images: 7, not 8"),
        ({"more": 1}, "more: None, not 1"),
    ],
)
def test_other_settings_are_refused(
    state: LearningState, changes: dict[str, Any], difference: str, tmp_path: Path
) -> None:
    path = tmp_path / "state.safetensors"
    save_state(state, path, SETTINGS)
    content = path.read_bytes()
    with pytest.raises(UsageError, match=rf"with other settings \({difference}\); delete it to start afresh"):
        load_state(path, SETTINGS | changes)
    assert path.read_bytes() == content


def test_a_damaged_state_is_refused_in_one_line(state: LearningState, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    save_state(state, path, SETTINGS)
    tensors, card = read_artefact(path, "learning state")

    def refused(match: str) -> None:
        with pytest.raises(InputError, match=match) as caught:
            load_state(path, SETTINGS)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    for name in ("filters", "indices/codes-0", "values/codes-0"):
        write_artefact(path, "learning state", {k: v for k, v in tensors.items() if k != name}, card)
        refused(f"is no intact learning state .*{name}.*; delete it to start afresh")
    for name in ("settings", "passes", "curve", "held_out", "reseeded", "sparse"):
        write_artefact(path, "learning state", tensors, {k: v for k, v in card.items() if k != name})
        refused(f"is no intact learning state .*{name}")
    write_artefact(path, "learning state", tensors, card | {"curve": 3})
    refused("is no intact learning state")
    write_artefact(path, "dictionaries", tensors, card | {"kind": "dictionaries"})
    refused("is a file of kind 'dictionaries', not 'learning state'")
    save_state(state, path, SETTINGS)
    path.write_bytes(path.read_bytes()[:-1])
    refused("is damaged")
