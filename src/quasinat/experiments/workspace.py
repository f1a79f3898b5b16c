"""An output folder whose steps survive an interruption: each is computed once, written whole, and read after that."""

import json
import time
from collections.abc import Callable
from glob import escape
from pathlib import Path
from typing import Any

from torch import Tensor

from quasinat.errors import InputError, UsageError
from quasinat.files import alone, parsed_json, read_json, read_tensors, write_json, write_tensors

Step = tuple[dict[str, Tensor], dict[str, Any]]


class Workspace:
    """Opens `folder` for a run described by `fingerprint` (settings and code).

    A new or empty folder is taken. The folder of an earlier run of the same fingerprint is continued. Anything else
    is refused, unless `overwrite` clears an earlier run's steps; files that are no run's are never touched.

    Raises:
        UsageError: the folder holds something else.
        OutputError: the folder cannot be written.
    """

    def __init__(self, folder: Path, fingerprint: dict[str, Any], *, overwrite: bool = False) -> None:
        self.folder = folder
        self.steps = folder / "steps"
        self.seconds: dict[str, float] = {}
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder} is a file", "choose another --out")
        with alone(folder / "run.json"):
            self._open(folder, fingerprint, overwrite)

    def _open(self, folder: Path, fingerprint: dict[str, Any], overwrite: bool) -> None:
        run = folder / "run.json"
        if run.is_file() and not overwrite:
            if read_json(run) != fingerprint:
                raise UsageError(
                    f"{folder} holds a run of other settings or code", "choose another --out, or pass --overwrite"
                )
            return
        if not run.is_file() and any(not path.name.startswith(".") for path in folder.iterdir()):
            raise UsageError(f"{folder} exists and holds no run of ours", "choose another --out")
        made = [*folder.glob("steps/*.safetensors"), *folder.glob("*.stl")]
        for stale in [*made, folder / "results.json", folder / "page.html"]:
            stale.unlink(missing_ok=True)
        write_json(run, fingerprint)

    def step(self, name: str, compute: Callable[[], Step]) -> Step:
        """The tensors and values of a step: read if it was done before, else computed and written.

        The values gain `seconds`, how long the computation took. While another process computes the step, this one
        waits for it.
        """
        path = self.steps / f"{name}.safetensors"
        if not path.is_file():
            with alone(path):
                if not path.is_file():
                    began = time.perf_counter()
                    tensors, values = compute()
                    values["seconds"] = round(time.perf_counter() - began, 3)
                    self.seconds[name] = values["seconds"]
                    write_tensors(path, tensors, {"values": json.dumps(values)})
                    return tensors, values
        tensors, metadata = read_tensors(path)
        try:
            values = parsed_json(metadata["values"])
            self.seconds[name] = float(values["seconds"])
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{path} is no intact step of a run", "delete it and run the command again") from None
        return tensors, values

    def forget(self, prefix: str) -> None:
        """Removes the steps whose names begin so: what they were needed for is done, and they are large."""
        for path in self.steps.glob(f"{escape(prefix)}*.safetensors"):
            path.unlink()
