"""Folders anywhere that fsspec reaches (a disk, S3, memory): their files read and written whole."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quasinat.errors import InputError, OutputError


@dataclass(frozen=True)
class Place:
    """A folder by its URL, as `s3://bucket/folder`, `memory://folder` or a path."""

    url: str

    @property
    def _system(self) -> tuple[Any, str]:
        import fsspec

        try:
            system, path = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise InputError(f"{self.url} cannot be opened ({error})", "check its protocol") from None
        return system, path.rstrip("/")

    def absolute(self) -> "Place":
        """The same folder by its whole URL, which means the same wherever it is read."""
        system, path = self._system
        return Place(system.unstrip_protocol(path))

    def overlaps(self, other: "Place") -> bool:
        """Whether one of the two folders holds the other or is the other."""
        ours, theirs = (f"{place.absolute().url}/" for place in (self, other))
        return ours.startswith(theirs) or theirs.startswith(ours)

    def names(self) -> list[str]:
        """The files below the folder at any depth, relative, sorted; those whose names or folders start with a dot
        are left out."""
        system, path = self._system
        system.invalidate_cache()
        every = system.find(path) if system.exists(path) else ()
        if _is_local(system):  # what is no file, such as a pipe, would be waited for
            every = [name for name in every if Path(name).is_file()]
        found = (name.removeprefix(path).lstrip("/") for name in every)
        return sorted(name for name in found if not any(part.startswith(".") for part in name.split("/")))

    def read(self, name: str) -> bytes:
        """A file's bytes.

        Raises:
            InputError: it is not there or cannot be read.
        """
        system, path = self._system
        try:
            content: bytes = system.cat_file(f"{path}/{name}")
        except OSError as error:
            raise InputError(f"{self.url}/{name} cannot be read ({_reason(error)})", "check the path") from None
        return content

    def holds(self, name: str) -> bool:
        """Whether the file is there."""
        system, path = self._system
        system.invalidate_cache()
        return bool(system.exists(f"{path}/{name}"))

    def write(self, name: str, content: bytes) -> None:
        """Writes a file whole or not at all: on a disk beside its name first, elsewhere as the store does it.

        Raises:
            OutputError: the file system refuses.
        """
        from quasinat.files import write_bytes

        system, path = self._system
        target = f"{path}/{name}"
        if _is_local(system):
            write_bytes(Path(target), content)
            return
        try:
            system.makedirs(target.rpartition("/")[0], exist_ok=True)
            system.pipe_file(target, content)
        except OSError as error:
            raise OutputError(f"cannot write {self.url}/{name} ({_reason(error)})", "check the access") from error


def _is_local(system: Any) -> bool:
    return "file" in (system.protocol if isinstance(system.protocol, tuple) else (system.protocol,))


def _reason(error: OSError) -> str:
    return error.strerror or " ".join(str(error).split()) or type(error).__name__
