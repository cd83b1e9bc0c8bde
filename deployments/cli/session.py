"""What every command begins with: the configuration, its root, and the ledger below it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nightglass.config import Observatory, load_observatory
from nightglass.errors import Misconfigured
from nightglass.layout import Layout
from nightglass.model import Night
from nightglass.nights import night_of

if TYPE_CHECKING:
    from nightglass.ledger import Ledger

__all__ = ["Session", "names_in", "open_session", "tonight"]


@dataclass(frozen=True, slots=True)
class Session:
    """The configuration of one command.

    Attributes
    ----------
    observatory : Observatory
        File, environment and command line together.
    configuration : Path or None
        The file that was named on the command line.
    """

    observatory: Observatory
    configuration: Path | None

    @property
    def layout(self) -> Layout:
        """Paths below the root."""
        return Layout(self.observatory.root)

    @property
    def ledger_address(self) -> str:
        """URL or path of the ledger."""
        return self.observatory.ledger_url or str(self.layout.ledger)

    @contextmanager
    def ledger(self) -> Iterator[Ledger]:
        """Open the ledger that is there.

        Raises
        ------
        Misconfigured
            If no night was ever run under this root.
        """
        from nightglass.ledger import Ledger

        if not self.observatory.ledger_url and not self.layout.ledger.exists():
            message = f"there is no night under {self.observatory.root} yet"
            raise Misconfigured(message, remedy="run one, or name another place by --root or NIGHTGLASS_ROOT")
        with Ledger.open(self.ledger_address) as ledger:
            yield ledger


def open_session(
    config: Path | None = None, root: Path | None = None, overrides: Mapping[str, Any] | None = None
) -> Session:
    """Load the configuration of a command.

    Raises
    ------
    Misconfigured
        If a value or key does not fit.
    """
    values = {**({"root": str(root)} if root is not None else {}), **(overrides or {})}
    return Session(load_observatory(config, overrides=values), config)


def tonight(observatory: Observatory) -> Night:
    """Return the night that it is now at the site."""
    return night_of(datetime.now(UTC), observatory.site)


def names_in(text: str | None) -> list[str] | None:
    """Return the names of a comma-separated list; None where nothing was given."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]
