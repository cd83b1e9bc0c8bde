"""Passwords in addresses, which are for whoever connects, and for nobody else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["has_password", "without_passwords"]

_USERINFO: Final = re.compile(r"\b([a-z][a-z0-9+.-]*://)[^/?#\s]*@", re.IGNORECASE)
"""Of an address (RFC 3986, section 3.2.1): all before the last @ of its authority."""


def has_password(address: str) -> bool:
    """Tell whether an address brings a user or a password along."""
    return _USERINFO.match(address) is not None


def without_passwords(value: Any) -> Any:
    """Return plain JSON values in which no address has a user or a password."""
    if isinstance(value, str):
        return _USERINFO.sub(r"\1", value)
    if isinstance(value, Mapping):
        return {name: without_passwords(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_passwords(item) for item in value]
    return value
