"""A fixed layer, or a classifier behind one, as a program of `torch.export` and its file (.pt2)."""

import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from quasinat.arrays import Images
from quasinat.artefact import Card
from quasinat.errors import InputError
from quasinat.files import write_atomically

CARD = "quasinat.json"  # the extra file with the card
_EXAMPLES = 3  # a batch of one would be taken for a constant


def program_of(module: nn.Module, images: Images) -> torch.export.ExportedProgram:
    """The graph of a module for any number of images of the size of `images` (only their shape counts)."""
    example = images.new_full((_EXAMPLES, *images.shape[1:]), 0.5)
    with torch.no_grad():
        batch = {0: torch.export.Dim("batch")}
        return torch.export.export(module.eval(), (example,), dynamic_shapes=(batch,))


def write_program(path: Path, program: torch.export.ExportedProgram, card: Card) -> None:
    """Writes the program with its card, whole or not at all.

    Raises:
        OutputError: the file system refuses.
    """

    def write(temporary: Path) -> None:
        with warnings.catch_warnings(), temporary.open("wb") as file:
            # Of weights that lie channels last, which are saved all the same.
            warnings.filterwarnings("ignore", message="No complete tensor found", category=UserWarning)
            torch.export.save(program, file, extra_files={CARD: json.dumps(card)})

    write_atomically(path, write)


def load_program(path: str | Path) -> tuple[Callable[[Images], torch.Tensor], Card]:
    """What `write_program` wrote: a function of images `B C H W`, and the card.

    Args:
        path: of the file, which is a program: load none that you would not run.

    Raises:
        InputError: the file is missing, or no such program.
    """
    path, found = Path(path), {CARD: ""}
    if not path.is_file():
        raise InputError(f"{path} is missing", "make it again, or check the path")
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is no exported program", "export it again")
    try:
        with path.open("rb") as file:
            program = torch.export.load(file, extra_files=found)
        card = json.loads(found[CARD])
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} is no exported program ({reason})", "export it again") from None
    return program.module(), card
