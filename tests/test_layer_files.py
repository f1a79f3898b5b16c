"""The layer's file: it gives the same layer to the bit, runs no code, and is refused in one line where it is none."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from layers import dictionary_of, images_of, stratified, universal
from quasinat.artefact import read_artefact, read_card, write_artefact
from quasinat.errors import InputError
from quasinat.files import read_tensors, write_tensors
from quasinat.layer import Normalise, RefineOver, SparseTransformationLayer
from quasinat.sparse_coding import ADMM, Auto, CoordinateDescent, FusedADMM, Solver
from quasinat.strata import Split
from sparse_coding.unchecked import unchecked

load = SparseTransformationLayer.load


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, dict[str, Tensor], dict[str, Any]]:
    """A layer's file with its tensors and its card."""
    path = tmp_path / "layer.stl"
    stratified(provenance={"data": "photographs"}).save(path)
    return path, *read_artefact(path, "layer")


def same(first: SparseTransformationLayer, second: SparseTransformationLayer) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(
        value.equal(theirs[name]) and value.dtype == theirs[name].dtype for name, value in ours.items()
    )


@pytest.mark.parametrize(
    "solver",
    [
        Auto(tolerance=0.05),
        CoordinateDescent(passes=3),
        ADMM(storage=torch.bfloat16, adaptive=True),
        FusedADMM(max_steps=7),
    ],
)
def test_a_file_keeps_the_solver(solver: Solver, tmp_path: Path) -> None:
    layer = SparseTransformationLayer(None, [dictionary_of(3)], 0.05, solver=solver)
    layer.save(tmp_path / "layer.stl")
    assert load(tmp_path / "layer.stl").solver == solver


@pytest.mark.parametrize(
    ("split", "normalise", "refine", "over"),
    [("tikhonov", "clip", 0, "image"), ("none", "max", 1, "batch"), ("mid-grey", "clip", 1, "image")],
)
@pytest.mark.parametrize("make", [universal, stratified])
def test_a_file_gives_the_same_layer(
    make: Callable[..., SparseTransformationLayer],
    split: Split,
    normalise: Normalise,
    refine: int,
    over: RefineOver,
    tmp_path: Path,
) -> None:
    solver = ADMM(tolerance=1e-2, max_steps=20, penalty=3.0)
    past = {"data": {"name": "photographs", "seed": 3}, "curve": [0.1, 1 / 3, 1e-300], "nothing": None}
    layer = make(split=split, normalise=normalise, refine=refine, refine_over=over, solver=solver, provenance=past)
    layer.save(tmp_path / "layer.stl")
    again = load(str(tmp_path / "layer.stl"))
    images = images_of(3, 3, 14, 14)
    assert again(images).equal(layer(images))
    assert again.stratum(images).equal(layer.stratum(images))
    assert same(layer, again)
    assert again.settings() == layer.settings()
    assert (again.solver, again.split, again.sparsity) == (solver, split, 0.05)
    assert (again.normalise, again.refine, again.refine_over) == (normalise, refine, over)
    assert again.learned == layer.learned
    assert again.learned[0]["curve"] == [3.0, 2.0]
    for ours, theirs in zip(layer.dictionaries, again.dictionaries, strict=True):
        assert ours.filters.equal(theirs.filters)
        assert (ours.curve, ours.held_out, ours.images) == (theirs.curve, theirs.held_out, theirs.images)
        assert (ours.constraint, ours.zero_mean, ours.reseeded) == (theirs.constraint, False, theirs.reseeded)
    assert again.provenance == past
    assert not again.training
    assert again.adjoint is None
    assert [path.name for path in tmp_path.iterdir()] == ["layer.stl"]
    again.save(tmp_path / "again.stl")
    assert (tmp_path / "again.stl").read_bytes() == (tmp_path / "layer.stl").read_bytes()


def test_the_card_says_what_the_layer_is(written: tuple[Path, dict[str, Tensor], dict[str, Any]]) -> None:
    card = read_card(written[0])
    assert (card["schema"], card["kind"], card["provenance"]) == (2, "layer", {"data": "photographs"})
    assert card["settings"]["shape"] == [3, 8, 3, 5, 5]
    assert card["settings"]["solver"]["name"] == "auto"
    assert card["settings"]["strata"] == {
        "count": 3,
        "neighbours": 1,
        "channels": 3,
        "width": 4,
        "components": None,
        "images": 12,
    }
    assert [past["reseeded"] for past in card["settings"]["dictionaries"]] == [0, 1, 2]
    assert card["versions"].keys() == {"quasinat", "torch", "python"}


def test_no_pickle_is_involved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bomb(*arguments: object, **options: object) -> None:
        raise AssertionError("a pickle was read")

    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, name, bomb)
    layer = stratified()
    layer.save(tmp_path / "layer.stl")
    assert same(load(tmp_path / "layer.stl"), layer)
    monkeypatch.undo()
    (tmp_path / "pickle.stl").write_bytes(pickle.dumps({"filters": [0.0] * 100}))
    torch.save({"filters": torch.zeros(3)}, tmp_path / "torch.stl")
    for name in ("pickle.stl", "torch.stl"):
        with pytest.raises(InputError, match=f"{name} is damaged"):
            load(tmp_path / name)


def refused(path: Path, match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "; " in str(caught.value)  # a remedy


def test_a_file_that_is_no_layer_is_refused(written: tuple[Path, dict[str, Tensor], dict[str, Any]]) -> None:
    whole, tensors, card = written
    payload, bad = whole.read_bytes(), whole.with_name("bad.stl")
    refused(bad, "is missing; make it again, or check the path")
    for length in (0, 5, 200, len(payload) // 2, len(payload) - 1):
        bad.write_bytes(payload[:length])
        refused(bad, "is damaged .*; delete it and make it again")
    bad.write_bytes(b"no safetensors at all" * 20)
    refused(bad, "is damaged")
    for metadata in (None, {"other": "{}"}, {"quasinat": "not JSON"}, {"quasinat": "[]"}, {"quasinat": "{}"}):
        write_tensors(bad, tensors, metadata)
        refused(bad, "is no artefact of quasinat; pass a file that `quasinat learn` made")
    for schema in (99, 1, "2", None):
        write_tensors(bad, tensors, {"quasinat": json.dumps({**card, "schema": schema})})
        refused(bad, f"has schema {schema}, this version reads 2; learn it again")
    for kind in ("strata", "dictionaries", None):
        write_tensors(bad, tensors, {"quasinat": json.dumps({**card, "kind": kind})})
        refused(bad, f"is a file of kind {kind!r}, not 'layer'; pass one of kind 'layer'")
    assert read_tensors(whole)[0].keys() == tensors.keys()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"filters": None}, "lacks the tensor filters"),
        ({"filters": torch.zeros(2, 8, 3, 5, 5)}, r"holds filters of shape \(2, 8, 3, 5, 5\), its card says \(3, 8, 3"),
        ({"more": torch.zeros(1)}, "holds an unknown tensor more"),
        ({"strata.latents": None}, "lacks the tensor strata.latents"),
        ({"strata.more": torch.zeros(1)}, "holds an unknown tensor strata.more"),
        ({"strata.latents": torch.zeros(12, 9)}, r"holds strata.latents of shape \(12, 9\), its card says \(12, 64\)"),
        ({"strata.labels": torch.full((12,), 3)}, "holds labels that are no strata from 0 to 2"),
        ({"strata.autoencoder.decoder.12.bias": None}, "lacks the tensor strata.autoencoder.decoder.12.bias"),
        (
            {"strata.latents": torch.zeros(11, 64), "strata.labels": torch.zeros(11, dtype=torch.int64)},
            r"is incomplete or wrong \(11 training latents\)",
        ),
    ],
)
def test_tensors_that_do_not_fit_the_card_are_refused(
    written: tuple[Path, dict[str, Tensor], dict[str, Any]], changes: dict[str, Tensor | None], problem: str
) -> None:
    path, tensors, card = written
    changed = {name: value for name, value in {**tensors, **changes}.items() if value is not None}
    write_artefact(path, "layer", changed, card)
    refused(path, problem)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"split": "tikonov"}, "unknown split 'tikonov'"),
        ({"normalise": "mean"}, "unknown normalise 'mean'"),
        ({"refine": None}, "incomplete or wrong"),
        ({"strata": None}, "holds an unknown tensor strata"),
        ({"strata": {}}, "no usable setting 'count'"),
        ({"strata": "three"}, "no usable setting 'count'"),
        ({"shape": None}, "incomplete or wrong"),
        ({"solver": {"name": "simplex"}}, "incomplete or wrong"),
        ({"solver": {"name": "admm", "storage": "torch.float7"}}, "incomplete or wrong"),
        ({"solver": "admm"}, "incomplete or wrong"),
        ({"dictionaries": []}, "incomplete or wrong"),
        ({"dictionaries": [1, 2, 3]}, "incomplete or wrong"),
    ],
)
def test_a_card_that_is_wrong_is_refused(
    written: tuple[Path, dict[str, Tensor], dict[str, Any]], changes: dict[str, Any], problem: str
) -> None:
    path, tensors, card = written
    write_artefact(path, "layer", tensors, {**card, "settings": {**card["settings"], **changes}})
    with unchecked():
        refused(path, problem)


def test_a_card_that_lacks_a_part_is_refused(written: tuple[Path, dict[str, Tensor], dict[str, Any]]) -> None:
    path, tensors, card = written
    for name in card["settings"]:
        fewer = {key: value for key, value in card["settings"].items() if key != name}
        write_artefact(path, "layer", tensors, {**card, "settings": fewer})
        refused(path, f"is incomplete or wrong \\('{name}'\\); learn the layer again")
    for settings in (None, [], "all"):
        write_artefact(path, "layer", tensors, {**card, "settings": settings})
        refused(path, "is incomplete or wrong")
    for name in ("settings", "provenance"):
        write_artefact(path, "layer", tensors, {key: value for key, value in card.items() if key != name})
        refused(path, f"is incomplete or wrong \\('{name}'\\)")
