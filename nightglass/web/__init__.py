"""The web application: pages of live monitors and of the night, on one port, for reading only."""

from __future__ import annotations

from nightglass.web.application import Site, make_app
from nightglass.web.serving import WebServer, check_place

__all__ = ["Site", "WebServer", "check_place", "make_app"]
