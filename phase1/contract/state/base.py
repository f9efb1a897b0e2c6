"""What every state file has in common: it is read whole and checked, or refused in one line; unknown keys are kept."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from phase1.files import BadInput, json_text, read_json, write_text


def path_beside(path: Path, file: Path) -> str:
    """A path as a state file keeps it: relative to the file's folder, so that a project can be moved or copied, and
    absolute where the two have nothing but the root in common."""
    path, home = path.absolute(), file.absolute().parent
    if len(Path(os.path.commonpath([path, home])).parts) < 2:
        return str(path)
    return os.path.relpath(path, home)


def path_from(text: str, file: Path) -> Path:
    """The path that a state file keeps, as an absolute one."""
    return Path(os.path.normpath(file.absolute().parent / text))


class StateFile(BaseModel):
    """A JSON file that one stage writes and others read.

    Unknown keys are kept, so that a file of a later version survives being read and written by an earlier one. A copy
    with other values is made by `model_copy(update={…})`.
    """

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    @classmethod
    def read(cls, path: Path) -> Self:
        """The record in `path`.

        Raises:
            BadInput: the file is missing, is not JSON, or a field has another form than the stage that writes it gives.
        """
        return cls.of(read_json(path), path)

    @classmethod
    def of(cls, value: object, path: Path) -> Self:
        """The record that a JSON value holds; `path` is named in the error."""
        try:
            record: Self = cls.model_validate(value)
        except ValidationError as e:
            first = e.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "the whole file"
            raise BadInput(f"{path}: {where}: {first['msg']}; write it again with the step that makes it") from None
        return record

    def write(self, path: Path) -> None:
        """Write the record as JSON, whole or not at all."""
        write_text(path, self.text())

    def text(self) -> str:
        """The record as JSON: the fields that were set, in the order of the class."""
        return json_text(self.model_dump(mode="json", exclude_unset=True))


class Stamp(BaseModel):
    """How a result file was made (`phase1.files.run_stamp`)."""

    model_config = ConfigDict(extra="allow", frozen=True)

    command: list[str] = []
    arguments: dict[str, JsonValue] = {}
    versions: dict[str, str] = {}
    git_revision: str | None = None
    host: str | None = None
    user: str | None = None
    platform: str | None = None
    time: str | None = None
