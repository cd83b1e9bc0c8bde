"""The screen of a running night, and log lines beside it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from deployments.cli.screen import night_screen
from deployments.cli.view import NightView, look
from deployments.logs import formatter
from nightglass.errors import NightglassError

if TYPE_CHECKING:
    from nightglass.config import Observatory
    from nightglass.ledger import Ledger
    from nightglass.model import Night

__all__ = ["LiveNight", "ScreenHandler", "newest_night"]

_PER_SECOND = 2
_STYLES = {"WARNING": "yellow", "ERROR": "bold red", "CRITICAL": "bold red", "DEBUG": "bright_black"}

Frame = Callable[[NightView, int], RenderableType]
"""Takes a view and the columns of the terminal."""


class ScreenHandler(logging.Handler):
    """Writes log lines above the screen, where they stay."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self.setFormatter(formatter())

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        try:
            self._console.print(Text(self.format(record), _STYLES.get(record.levelname, "")), soft_wrap=True)
        except Exception:  # noqa: BLE001 - logging's own rule: a line that can't be written stops nothing
            self.handleError(record)


class LiveNight:
    """A screen that follows a night while a block runs, and leaves its last state behind.

    Parameters
    ----------
    ledger : Ledger
        Only read.
    night : callable
        Returns the night to show now.
    camera : str or None
        None: all cameras.
    frame : callable, optional
        Makes the screen of a view.
    """

    def __init__(
        self,
        console: Console,
        ledger: Ledger,
        observatory: Observatory,
        *,
        night: Callable[[], Night],
        camera: str | None,
        frame: Frame | None = None,
    ) -> None:
        self._console = console
        self._ledger = ledger
        self._observatory = observatory
        self._night = night
        self._camera = camera
        self._frame = frame or (lambda view, width: night_screen(view, width=width))
        self._live = Live(
            console=console,
            get_renderable=self._now,
            refresh_per_second=_PER_SECOND,
            vertical_overflow="crop",
            transient=True,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def _now(self) -> RenderableType:
        try:
            rows = max(3, self._console.height - 16)
            view = look(self._ledger, self._observatory, self._night(), camera=self._camera, recent=min(rows, 12))
            return self._frame(view, self._console.width)
        except (NightglassError, OSError) as error:
            # the ledger may be busy for a moment; the next refresh is near
            return Text(f"no view of the night now: {error}", "yellow")


def newest_night(ledger: Ledger, camera: str | None) -> Night | None:
    """Return the night that was opened last."""
    known = ledger.nights(camera)
    return max(known, key=lambda record: record.opened_at).night if known else None
