"""The shape of the records in the spool: what a disk gives back is looked at before anybody relies on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue

__all__ = ["check_exposure", "check_frame"]

Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]
Name = Annotated[str, Field(pattern=r"^[A-Z0-9_-]{1,32}$")]
Count = Annotated[int, Field(ge=0)]


class _Stored(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Extension(_Stored):
    name: Name
    source: str
    path: Annotated[Text, Field(min_length=1)]
    hdu: Count
    header_offset: Count
    data_offset: Count
    data_size: Count
    shape: list[Count]
    bitpix: int
    size: Count
    sha256: str
    received_at: float
    compressed: bool
    cards: str
    number: Count


class _Frame(_Stored):
    expid: Count
    frame: Count
    state: str
    extensions: list[_Extension]
    primary: str
    missing: list[str]
    expected: list[str]
    instructions: dict[str, JsonValue]
    times: dict[str, float]
    deadline: float | None
    files: list[Text]
    claims: list[Text]
    published: Text | None
    revision: Count
    purged: bool
    sends: dict[str, str] = Field(default_factory=dict)
    notes: list[str]


class _Order(_Stored):
    add2primary: list[str] | dict[str, JsonValue]
    add2secondary: list[str] | dict[str, JsonValue]
    add2metadata: list[str] | dict[str, JsonValue]
    compress: bool | None
    archive_dir: str | None


class _Exposure(_Stored):
    expid: Count
    night: str
    state: str
    instructions: dict[str, JsonValue]
    archive: Text | None
    asked: _Order | None


def check_frame(record: Mapping[str, Any], directory: Path) -> None:
    """See that a record is one of the frame in whose directory it lies.

    Raises
    ------
    ValueError
        If it is not.
    """
    found = _Frame.model_validate(record)
    if (f"{found.expid:08d}", f"{found.frame:04d}") != (directory.parent.name, directory.name):
        message = f"it is of frame {found.expid}/{found.frame}"
        raise ValueError(message)


def check_exposure(record: Mapping[str, Any], directory: Path) -> None:
    """See that a record is one of the exposure in whose directory it lies.

    Raises
    ------
    ValueError
        If it is not.
    """
    found = _Exposure.model_validate(record)
    if (f"{found.expid:08d}", found.night) != (directory.name, directory.parent.parent.name):
        message = f"it is of exposure {found.expid} of {found.night}"
        raise ValueError(message)
