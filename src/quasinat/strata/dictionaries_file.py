"""Dictionaries as a file of their own, so that a layer can be put together from parts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from quasinat.artefact import Card, check_numbers, check_tensors, read_artefact, write_artefact
from quasinat.errors import InputError
from quasinat.sparse_coding.dictionary import Dictionary, dictionary_from, history

KIND = "dictionaries"


def save_dictionaries(dictionaries: Sequence[Dictionary], path: str | Path, card: Mapping[str, Any]) -> None:
    """Writes one dictionary per stratum, of equal shapes, whole or not at all; the card gains how each was learned.

    Args:
        dictionaries: one for each stratum.
        path: of the file to write.
        card: how they were made, anything that JSON holds.
    """
    filters = torch.stack([dictionary.filters for dictionary in dictionaries])
    past = [history(dictionary) for dictionary in dictionaries]
    write_artefact(Path(path), KIND, {"filters": filters}, {**card, "shape": list(filters.shape), "dictionaries": past})


def load_dictionaries(path: str | Path) -> tuple[tuple[Dictionary, ...], Card]:
    """The dictionaries and the card that `save_dictionaries` wrote.

    Args:
        path: of the file.

    Raises:
        InputError: the file is missing, damaged, or holds no dictionaries.
    """
    path = Path(path)
    tensors, card = read_artefact(path, KIND)
    try:
        check_tensors(path, tensors, {"filters": tuple(card["shape"])})
        check_numbers(path, "filters", tensors["filters"])
        pairs = zip(tensors["filters"], card["dictionaries"], strict=True)
        return tuple(dictionary_from(filters, past) for filters, past in pairs), card
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the card of {path} is incomplete or wrong ({error})", "learn them again") from None
