"""What is handed out, and what is done when that is over, also when whoever asked went away before."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from fastapi.responses import FileResponse, StreamingResponse

from nightglass.web.answers import tar_of

__all__ = ["CountedStream", "PassingFile", "PassingTar"]


class CountedStream(StreamingResponse):
    """A stream that goes on for ever, counted among others from the moment when it is granted.

    Parameters
    ----------
    among : set
        Of the streams that there are.
    """

    def __init__(self, content: AsyncIterator[str], *, among: set[object]) -> None:
        super().__init__(content, media_type="text/event-stream")
        self._among = among
        among.add(self)

    async def __call__(self, *arguments: Any) -> None:
        """Send it."""
        try:
            await super().__call__(*arguments)
        finally:
            self._among.discard(self)


class PassingFile(FileResponse):
    """One file."""

    async def __call__(self, *arguments: Any) -> None:
        """Send it."""
        try:
            await super().__call__(*arguments)
        finally:
            await _remove([Path(self.path)], None)


class PassingTar(StreamingResponse):
    """Several files in one tar archive.

    Parameters
    ----------
    directory : Path, optional
        Goes as well.
    """

    def __init__(self, files: Sequence[Path], *, directory: Path | None = None, **options: Any) -> None:
        super().__init__(tar_of(files), media_type="application/x-tar", **options)
        self._files, self._directory = tuple(files), directory

    async def __call__(self, *arguments: Any) -> None:
        """Send them."""
        try:
            await super().__call__(*arguments)
        finally:
            await _remove(self._files, self._directory)


async def _remove(files: Sequence[Path], directory: Path | None) -> None:
    with anyio.CancelScope(shield=True):
        for path in files:
            await anyio.to_thread.run_sync(partial(path.unlink, missing_ok=True))
        if directory is not None:
            await anyio.to_thread.run_sync(partial(shutil.rmtree, directory, ignore_errors=True))
