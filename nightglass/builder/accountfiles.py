"""Accounts as files: JSON, replaced whole, so that a kill leaves the last one or the new one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from nightglass.errors import Misconfigured
from nightglass.fitsio import write_atomic

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["restored", "write_account"]

T = TypeVar("T")


def write_account(path: Path, account: DataclassInstance) -> None:
    """Put an account in place of the last one.

    Raises
    ------
    Retryable
        If the file system refuses.
    """
    with write_atomic(path) as part:
        part.write_text(json.dumps(asdict(account), indent=1))


def restored(path: Path, make: Callable[[dict[str, Any]], T], *, written: str) -> T:
    """Return an account.

    Parameters
    ----------
    make : callable
        Makes it of the values in the file; KeyError, TypeError or ValueError: they are of another shape.
    written : str
        When accounts of this kind are written, for who looks for one.

    Raises
    ------
    Misconfigured
        If there is none, or it is of another shape.
    """
    try:
        return make(json.loads(path.read_bytes()))
    except FileNotFoundError:
        message = f"there is no account {path}"
        raise Misconfigured(message, remedy=f"it is written when an exposure is {written}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{path} is no account of this kind: {error!r}"
        raise Misconfigured(message, remedy="it was written by another version") from error
