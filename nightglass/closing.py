"""What a ``with`` block closes at its end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

__all__ = ["Closing"]


class Closing(ABC):
    """A context manager that is itself what it gives, and ends by `close`, whatever happened in the block."""

    __slots__ = ()

    @abstractmethod
    def close(self) -> None:
        """Give back what is held: files, connections, threads."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
