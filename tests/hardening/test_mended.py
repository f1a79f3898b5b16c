"""What the fuzzing found and was mended, one small input for each: read, or refused in one clear line."""

import json
import socket
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from PIL import Image

from hardening.refusals import answer, is_clear
from layers import dictionary_of, strata_of, universal
from quasinat.artefact import read_card
from quasinat.data.download import download
from quasinat.data.image_files import in_mode, read_picture
from quasinat.data.image_tree import our_pngs, picture_size
from quasinat.data.imagenet import _class_numbers
from quasinat.data.plain_pickle import PlainPickleError, read_plain_pickle
from quasinat.errors import InputError, did_you_mean
from quasinat.experiments import table_spec
from quasinat.experiments.workspace import Workspace
from quasinat.files import read_json, read_tensors, write_json, write_tensors
from quasinat.layer import SparseTransformationLayer
from quasinat.networks.mobilenet import load_mobilenet
from quasinat.report.result_file import check
from quasinat.report.results_page import write_results
from quasinat.sparse_coding.dictionary_problem import LearningState
from quasinat.sparse_coding.solver_card import solver_from
from quasinat.strata import Strata
from quasinat.strata.dictionaries_file import load_dictionaries, save_dictionaries
from quasinat.strata.learning_file import load_state, save_state

ROOT = Path(__file__).resolve().parents[2]


def refused(call: Callable[[], object], said: str) -> None:
    """The call is refused by an `InputError` of one clear line with these words in it."""
    found = answer(call)
    assert isinstance(found, InputError)
    assert is_clear(found)
    assert said in str(found)


def changed(source: Path, path: Path, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], None]) -> Path:
    """An artefact with its card or its tensors changed."""
    tensors, metadata = read_tensors(source)
    card = json.loads(metadata["quasinat"])
    change(card, tensors)
    write_tensors(path, tensors, {"quasinat": json.dumps(card)})
    return path


# Images.


def test_a_postscript_file_is_no_image_whatever_its_suffix(tmp_path: Path) -> None:
    """Pillow would run Ghostscript on it."""
    path = tmp_path / "x.png"
    Image.new("RGB", (8, 8)).save(path, "EPS")
    assert path.read_bytes().startswith(b"%!PS")
    refused(lambda: read_picture(path), "cannot be read as an image (no known image format)")
    refused(lambda: picture_size(path), "no known image format")
    assert list(our_pngs(tmp_path)) == []


@pytest.mark.parametrize("kind", ["ICO", "PCX", "TGA", "SGI", "JPEG2000", "PDF"])
def test_formats_that_nobody_named_are_not_decoded(kind: str, tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "x.png", kind)
    refused(lambda: read_picture(tmp_path / "x.png"), "no known image format")


def test_odd_metadata_is_no_warning_on_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "x.tiff"
    Image.new("L", (8, 8)).save(path)
    damaged = bytearray(path.read_bytes())
    place = int.from_bytes(damaged[4:8], "little")  # the directory: of its tags one is said to hold too much
    entries = int.from_bytes(damaged[place : place + 2], "little")
    damaged += bytes(8)
    last = place + 2 + 12 * (entries - 1)
    damaged[last + 4 : last + 8] = (2**20).to_bytes(4, "little")
    path.write_bytes(damaged)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answer(lambda: read_picture(path))
        answer(lambda: picture_size(path))


def test_a_transparency_that_does_not_fit_is_refused() -> None:
    picture = Image.new("L", (4, 4))
    picture.info["transparency"] = b"much too long for a grey image"
    refused(lambda: in_mode(picture, Path("x.png"), "rgb"), "x.png cannot be converted")


# Artefacts.


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    universal(1).save(tmp_path / "whole.stl")
    return tmp_path / "whole.stl"


LAYER_CHANGES: dict[str, Callable[[dict[str, Any], dict[str, torch.Tensor]], None]] = {
    "filters of integers": lambda card, tensors: tensors.update(filters=tensors["filters"].int()),
    "filters in half": lambda card, tensors: tensors.update(filters=tensors["filters"].half()),
    "filters of NaN": lambda card, tensors: tensors["filters"].fill_(torch.nan),
    "filters beyond": lambda card, tensors: tensors["filters"].mul_(1e12),
    "no lambda": lambda card, tensors: card["settings"].update(sparsity="0.2"),
    "lambda NaN": lambda card, tensors: card["settings"].update(sparsity=-1),
    "endless refining": lambda card, tensors: card["settings"].update(refine=10**9),
    "endless steps": lambda card, tensors: card["settings"]["solver"].update(max_steps=10**9),
    "steps of text": lambda card, tensors: card["settings"]["solver"].update(max_steps="10"),
    "a module for a type": lambda card, tensors: card["settings"]["solver"].update(storage="torch.load"),
    "no constraint": lambda card, tensors: card["settings"]["dictionaries"][0].update(constraint="none"),
    "a curve of text": lambda card, tensors: card["settings"]["dictionaries"][0].update(curve=["a"]),
}


@pytest.mark.parametrize("name", LAYER_CHANGES)
def test_a_layers_file_asks_for_nothing_odd_or_endless(name: str, layer: Path, tmp_path: Path) -> None:
    path = changed(layer, tmp_path / "changed.stl", LAYER_CHANGES[name])
    found = answer(lambda: SparseTransformationLayer.load(path))
    assert isinstance(found, InputError)
    assert is_clear(found)
    assert str(path) in str(found)


def test_a_solver_of_a_card_has_no_more_threads_than_a_machine() -> None:
    assert solver_from({"name": "coordinate-descent", "threads": 2}).max_steps == 500
    with pytest.raises(ValueError, match="the solver's threads is 1000000000"):
        solver_from({"name": "coordinate-descent", "threads": 10**9})  # which would end the process


def test_a_card_is_of_a_depth_that_can_be_shown(layer: Path, tmp_path: Path) -> None:
    deep: Any = 1
    for _ in range(300):
        deep = {"a": deep}
    path = changed(layer, tmp_path / "deep.stl", lambda card, tensors: card.update(provenance=deep))
    refused(lambda: read_card(path), "is no artefact of quasinat")
    write_tensors(tmp_path / "deeper.stl", {"a": torch.ones(1)}, {"quasinat": "[" * 100_000})
    refused(lambda: read_card(tmp_path / "deeper.stl"), "is no artefact of quasinat")


def test_what_a_card_says_ends_no_line(layer: Path, tmp_path: Path) -> None:
    path = changed(layer, tmp_path / "changed.stl", lambda card, tensors: card.update(kind="a\n\x1b[2Jb" * 1000))
    refused(lambda: SparseTransformationLayer.load(path), r"is a file of kind 'a\n\x1b[2Jba\n")


def test_strata_and_dictionaries_of_other_numbers_are_refused(tmp_path: Path) -> None:
    strata_of(1).save(tmp_path / "strata", {})
    for name in ("latents", "autoencoder.encoder.0.weight"):
        path = changed(tmp_path / "strata", tmp_path / "odd", lambda c, t, name=name: t.update({name: t[name].int()}))  # type: ignore[misc]
        refused(lambda path=path: Strata.load(path), "torch.int32")  # type: ignore[misc]
    save_dictionaries([dictionary_of(1)], tmp_path / "dictionaries", {})
    path = changed(tmp_path / "dictionaries", tmp_path / "odd", lambda c, t: t["filters"].fill_(torch.inf))
    refused(lambda: load_dictionaries(path), "holds filters that are not finite")


@pytest.mark.parametrize("odd", ["outside", "unsorted", "of another type", "of another shape"])
def test_a_learning_state_with_wrong_indices_is_refused_and_not_computed_with(odd: str, tmp_path: Path) -> None:
    """Indices outside the shape ended the process, or wrote where they pointed."""
    codes = (torch.arange(24.0).view(2, 3, 4) % 5 == 0).float().to_sparse()
    save_state(LearningState(torch.randn(3, 1, 3, 3), 1, (1.0,), (1.0,), 0, {"codes": codes}), tmp_path / "whole", {})
    assert torch.equal(load_state(tmp_path / "whole", {}).memory["codes"].to_dense(), codes.to_dense())

    def change(card: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        name = "indices/codes"
        if odd == "outside":
            tensors[name][0, -1] = 10**9
        elif odd == "unsorted":
            tensors[name] = tensors[name].flip(1)
        elif odd == "of another type":
            tensors[name] = tensors[name].double().to(torch.complex64)
        else:
            card["sparse"]["codes"] = [2, 3]

    path = changed(tmp_path / "whole", tmp_path / "odd", change)
    refused(lambda: load_state(path, {}), "is no intact learning state")


def test_mobilenets_weights_are_numbers_with_rows(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x", {"classifier.weight": torch.tensor(3.0)})
    refused(lambda: load_mobilenet(tmp_path / "x"), "holds no MobileNetV2")


def test_a_step_without_its_values_is_refused(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "run", {})
    for metadata in (None, {"values": "{"}, {"values": "[1]"}, {"values": "{}"}):
        write_tensors(workspace.steps / "one.safetensors", {"a": torch.ones(1)}, metadata)
        refused(lambda: workspace.step("one", lambda: ({}, {})), "is no intact step of a run")


# Text.


def test_json_that_is_nested_too_deep_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a":' * 100_000)
    refused(lambda: read_json(tmp_path / "x.json"), "is not readable JSON (it is nested more than 100 deep)")


@pytest.mark.parametrize("change", [{"key": []}, {"role": 3}, {"cells": []}, {"cells": {"clean": 1}}])
def test_rows_of_a_result_file_are_rows(change: dict[str, Any]) -> None:
    results = json.loads((ROOT / "results/demo/results.json").read_text())
    check(results)
    results["rows"][0] |= change
    refused(lambda: check(results), "lacks a valid 'rows[0].")


@pytest.fixture
def table() -> dict[str, Any]:
    made: dict[str, Any] = json.loads((ROOT / "results/tables/table4-smoke.json").read_text())
    return made


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "", "a\nb", 3, None, ["table1"]])
def test_a_result_file_names_no_page_outside(name: Any, table: dict[str, Any], tmp_path: Path) -> None:
    for key in ("table", "preset"):
        write_json(tmp_path / "in" / "x.json", table | {key: name})
        refused(lambda: write_results(tmp_path / "in", tmp_path / "out"), "that names no file")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "change", [{"rows": [{}]}, {"columns": 3}, {"data": {}}, {"title": None}, {"caption": "\ud800"}]
)
def test_a_damaged_result_file_makes_no_page(change: dict[str, Any], table: dict[str, Any], tmp_path: Path) -> None:
    write_json(tmp_path / "in" / "x.json", table | change)
    refused(lambda: write_results(tmp_path / "in", tmp_path / "out"), "is not as `quasinat run` writes it")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text", [b"a = ", b"\xff", b"a = " + b"[" * 5000, b"threat = 'retrained'", b"title = 3\nrows = 4", b"rows = [[]]"]
)
def test_a_tables_file_that_is_none_is_refused(text: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table_spec.known_rows()  # the package's own
    (tmp_path / "tables").mkdir()
    (tmp_path / "figures").mkdir()
    (tmp_path / "tables" / "table1.toml").write_bytes(text)
    monkeypatch.setattr(table_spec, "_resources", lambda: tmp_path)
    refused(lambda: table_spec.table_named.__wrapped__("table1"), "table1.toml is no table")


@pytest.mark.parametrize(
    "text", ["wnid,class_index\nn01\n", f"wnid,class_index\n{'x' * 200_000},1\n", "\0", "wnid\nn01\n"]
)
def test_labels_that_are_none_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(text)
    refused(lambda: _class_numbers(tmp_path), "has no usable columns wnid and class_index")


def test_a_pickle_warns_of_nothing() -> None:
    with pytest.raises(PlainPickleError):
        read_plain_pickle(b"\x80\x02S'\\]'\n.", frozenset())


def test_a_remedy_lists_no_more_names_than_can_be_read() -> None:
    names = [f"name-{number}" for number in range(5000)]
    assert did_you_mean("zzz", names).endswith("name-39 and 4960 more")
    assert did_you_mean("zzz", names[:40]).endswith("name-38, name-39")


# The network.


@pytest.fixture
def server() -> Iterator[Callable[[bytes], str]]:
    """Makes the address of a server that answers everything with the same bytes."""
    sockets: list[socket.socket] = []
    threads: list[Thread] = []

    def serve(listening: socket.socket, content: bytes) -> None:
        while True:
            try:
                caller, _ = listening.accept()
            except OSError:
                return
            with caller:
                caller.recv(65536)
                try:
                    caller.sendall(content)
                except OSError:  # the caller has heard enough
                    continue

    def start(content: bytes) -> str:
        sockets.append(socket.create_server(("127.0.0.1", 0)))
        threads.append(Thread(target=serve, args=(sockets[-1], content), daemon=True))
        threads[-1].start()
        return f"http://127.0.0.1:{sockets[-1].getsockname()[1]}/a"

    yield start
    for listening in sockets:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("length", ["x", "-5", "1e3", "9" * 5000, "\u0663"])
def test_a_length_that_is_no_number_is_no_crash(length: str, server: Callable[[bytes], str], tmp_path: Path) -> None:
    url = server(f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nhello".encode())
    found = answer(lambda: download(url, tmp_path / "a", "0" * 64))
    assert isinstance(found, InputError)
    assert is_clear(found)


def test_a_server_that_sends_more_than_the_file_is_cut_off(server: Callable[[bytes], str], tmp_path: Path) -> None:
    url = server(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + bytes(2**22))
    refused(
        lambda: download(url, tmp_path / "a", "0" * 64, most=2**20), "sends more than the 1,048,576 bytes of the file"
    )
    assert list(tmp_path.iterdir()) == []


def test_an_answer_with_control_characters_ends_no_line(server: Callable[[bytes], str], tmp_path: Path) -> None:
    url = server(b"HTTP/1.1 404 No\x1b[2J\x07\r\nContent-Length: 0\r\n\r\n")
    refused(lambda: download(url, tmp_path / "a", "0" * 64), r"answers 404 No\x1b[2J\x07")
