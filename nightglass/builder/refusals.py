"""Why a command is refused, as errors of their own: whoever speaks HTTP for the builder gives each its number.

::

    Rejected
    ├─ Unknown     no such exposure, frame or extension
    ├─ Complete    it is complete, nothing more is taken
    ├─ Exists      it is there, with other contents
    ├─ Unsaved     it would be lost
    └─ Purged      its pixels were given back, they are in a file
"""

from __future__ import annotations

from nightglass.errors import Rejected

__all__ = ["Complete", "Exists", "Purged", "Unknown", "Unsaved"]


class Unknown(Rejected):
    """There is no such exposure, frame or extension."""


class Complete(Rejected):
    """The exposure or frame is complete and takes nothing more."""


class Exists(Rejected):
    """It is there already, with other contents."""


class Unsaved(Rejected):
    """What should be dropped lies nowhere else."""


class Purged(Rejected):
    """The spool gave the pixels back; they are in a file."""
