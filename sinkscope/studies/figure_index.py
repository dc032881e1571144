"""The index of the figures of a study: which study they were made from, and the checksum of every file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from sinkscope.errors import OutputError
from sinkscope.io.readers import MAX_CONFIG_BYTES, read_text
from sinkscope.io.run_directory import sha256

INDEX = "index.json"
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,199}$")]


class FigureEntry(BaseModel):
    """One figure of an index."""

    model_config = ConfigDict(strict=True)

    name: FileName
    title: str
    caption: str = ""
    svg: FileName
    csv: FileName


class FigureIndex(BaseModel):
    """The content of `index.json`: the identity of a study, its figures in order, and files with SHA-256.

    `files` were made from the study, `others` in the same directory from other studies.
    """

    model_config = ConfigDict(strict=True)

    study: str
    files: dict[FileName, str]
    figures: list[FigureEntry]
    others: dict[FileName, str] = Field(default_factory=dict)

    @classmethod
    def read(cls, directory: Path, hint: str) -> FigureIndex | None:
        """The index of a directory; None if it has none.

        Raises:
            OutputError: the file is a link, cannot be read or is no index.
        """
        path = directory / INDEX
        if not path.exists() and not path.is_symlink():
            return None
        text = _read_inside(path, "index", hint, MAX_CONFIG_BYTES)
        try:
            return cls.model_validate_json(text)
        except (ValidationError, RecursionError) as error:
            raise OutputError(f"{path} is not an index of figures; {hint}") from error

    def read_file(self, directory: Path, name: str, label: str, hint: str, limit: int) -> str:
        """The text of a file that was made from the study, as it was written.

        Raises:
            OutputError: the file is a link, cannot be read or was changed.
        """
        path = directory / name
        text = _read_inside(path, label, hint, limit)
        if sha256(path) != self.files.get(name):
            raise OutputError(f"{label} {path} is not as {INDEX} describes it; {hint}")
        return text


def _read_inside(path: Path, label: str, hint: str, limit: int) -> str:
    if path.is_symlink():
        raise OutputError(f"{label} {path} is a link; {hint}")
    return read_text(path, label, OutputError, hint, limit)
