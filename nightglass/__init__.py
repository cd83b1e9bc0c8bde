"""Nightglass: an observatory's night, from the file that arrives to the final report."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("nightglass")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0.0.0"

__all__ = ["__version__"]
