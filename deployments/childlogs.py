"""Log lines of the children: to their own file by way of standard error, and to those of the open nights.

Prefect gives its loggers a handler of its own, and sends what the library says within a run to the server
(``PREFECT_LOGGING_EXTRA_LOGGERS``); here only the loggers of Nightglass are heard.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from deployments.logs import NightFiles, formatter
from nightglass.errors import NightglassError
from nightglass.layout import Layout

if TYPE_CHECKING:
    from nightglass.watch.work import Workbench

__all__ = ["log_nights", "speaking"]

_OURS = ("nightglass", "tasks", "deployments")


@contextlib.contextmanager
def speaking() -> Iterator[None]:
    """Send the lines of Nightglass to standard error, as long as the block lasts."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter())
    for name in _OURS:
        logging.getLogger(name).addHandler(handler)
        logging.getLogger(name).setLevel(logging.INFO)
    try:
        yield
    finally:
        for name in _OURS:
            logging.getLogger(name).removeHandler(handler)


def log_nights(bench: Workbench) -> None:
    """Send the lines of Nightglass to the log files of the newest open night of each camera, too."""
    layout = Layout(bench.observatory.root)

    def paths() -> tuple[Path, ...]:
        try:
            newest = {record.camera: record.night for record in bench.ledger.open_nights()}
        except NightglassError:  # the ledger is locked for now
            return ()
        return tuple(layout.log(camera, night) for camera, night in newest.items())

    handler = NightFiles(paths)
    for name in _OURS:
        logging.getLogger(name).addHandler(handler)
