"""The command ``nightglass``."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; errors become one clear line and an exit code.

    The codes: 0 well, 1 an exposure failed or something was busy or gone, 2 a mistake in command or configuration,
    130 interrupted.
    """
    from deployments.cli.app import app
    from nightglass.errors import Misconfigured, NightglassError

    try:
        app()
    except NightglassError as error:
        _complain(str(error))
        sys.exit(2 if isinstance(error, Misconfigured) else 1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
        sys.exit(0)


def _complain(text: str) -> None:
    colour = ("\033[1;31m", "\033[0m") if sys.stderr.isatty() else ("", "")
    sys.stderr.write(f"{colour[0]}nightglass:{colour[1]} {text}\n")
