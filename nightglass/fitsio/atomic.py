"""Files that appear whole or not at all: written beside their final name, synced, renamed."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Collection, Iterator
from pathlib import Path

from nightglass.errors import Retryable
from nightglass.model import sanitize

__all__ = ["part_path", "publish", "remove_stale_parts", "write_atomic"]

_SUFFIX = ".part"
_OWN_TOKEN = re.compile(r"w(\d+)x[0-9a-f]{8}")
"""Tokens of `write_atomic`: they name the process that writes."""


def part_path(final: Path, token: str) -> Path:
    """Return where the holder of a token writes before the file is published: ``<final>.<token>.part``."""
    return final.with_name(f"{final.name}.{sanitize(token)}{_SUFFIX}")


def publish(part: Path, final: Path) -> None:
    """Rename a written and synced file to its final name, and sync the directory.

    Raises
    ------
    Retryable
        If the file system refuses.
    """
    try:
        part.replace(final)
        _sync_directory(final.parent)
    except OSError as error:
        message = f"{final} cannot be published: {error}"
        raise Retryable(message, remedy="check the disk and the rights of the directory") from error


@contextlib.contextmanager
def write_atomic(path: Path) -> Iterator[Path]:
    """Give a path to write to; at the end of a block without exception the file is synced and renamed.

    Raises
    ------
    Retryable
        If the file system refuses, in the block or here. Whatever else the block raises goes through; no file is left.
    """
    part = part_path(path, f"w{os.getpid()}x{secrets.token_hex(4)}")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        yield part
        _sync_file(part)
        publish(part, path)
    except OSError as error:
        message = f"{path} cannot be written: {error}"
        raise Retryable(message, remedy="check the disk and the rights of the directory") from error
    finally:
        with contextlib.suppress(OSError):  # the first failure is the one to tell
            part.unlink(missing_ok=True)


def remove_stale_parts(root: Path, alive_tokens: Collection[str]) -> tuple[Path, ...]:
    """Remove parts below a directory that nobody writes any more; returns what was removed.

    A part stays if its token is alive, or if it belongs to `write_atomic` of a process that still runs on this host.
    """
    alive = {sanitize(token) for token in alive_tokens}
    removed = []
    for part in sorted(root.rglob(f"*{_SUFFIX}")):
        token = part.name.removesuffix(_SUFFIX).rpartition(".")[2]
        if token in alive or _runs(token) or not part.is_file():
            continue
        part.unlink(missing_ok=True)
        removed.append(part)
    return tuple(removed)


def _runs(token: str) -> bool:
    owner = _OWN_TOKEN.fullmatch(token)
    return owner is not None and Path(f"/proc/{owner[1]}").exists()


def _sync_file(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
