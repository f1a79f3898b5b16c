"""Each image's outcome in every cell of a table, for tests that pair them: a file beside the result file."""

from contextlib import suppress

from torch import Tensor

from quasinat.arrays import Labels
from quasinat.errors import InputError
from quasinat.experiments.table_places import places
from quasinat.experiments.table_spec import Table
from quasinat.experiments.workspace import Workspace
from quasinat.files import read_tensors


def table_outcomes(table: Table, workspace: Workspace, labels: Labels) -> dict[str, Tensor]:
    """Arrays of the cells that are there; a damaged one, which the table says has failed, is left out.

    Returns:
        `labels`, `N` int64; by ROW/COLUMN whether each image is in good hands, bool; and by ROW/COLUMN/flagged whether
        it is flagged, where the row has a detector. A white-box table's are of its first images.
    """
    arrays: dict[str, Tensor] = {"labels": labels}
    for place in places([table]):
        path = workspace.steps / f"{place.name}.safetensors"
        found = {}
        if path.is_file():
            with suppress(InputError):
                found = read_tensors(path)[0]
        name = f"{place.row.key}/{place.column}"
        if "right" in found:
            arrays[name] = found["right"]
        if "flagged" in found:
            arrays[f"{name}/flagged"] = found["flagged"]
    return arrays
