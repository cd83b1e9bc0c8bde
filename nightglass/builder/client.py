"""A client of the image builder, for instrument control systems that speak Python.

Every method is one request of the interface that ``/v1/docs`` describes; ``curl`` does the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from nightglass.builder.asking import Asking
from nightglass.closing import Closing

__all__ = ["Client"]

_JSON = Mapping[str, Any]


class Client(Closing):
    """Speaks to one image builder.

    Answers are what the interface answers, as plain values; errors are raised as the builder itself would raise them.

    Parameters
    ----------
    address : str
        Of the server, as ``nightglass serve`` prints it.
    builder : str
        Name of the builder; empty: the first one of the server.
    token : str
        What the server asks for; empty: NIGHTGLASS_TOKEN of the environment, if there is one.
    timeout_s : float
        Silence after which a request is given up; requests that wait add their own time.
    """

    def __init__(
        self,
        address: str = "http://127.0.0.1:8140",
        *,
        builder: str = "",
        token: str = "",
        timeout_s: float = 60.0,
    ) -> None:
        self._asking = Asking(address, builder=builder, token=token, timeout_s=timeout_s)

    def close(self) -> None:
        """Close the connection."""
        self._asking.close()

    # collecting

    def assign(self, expid: int, frame: int, **assignment: Any) -> dict[str, Any]:
        """Say what a frame consists of, and return at once.

        Parameters
        ----------
        assignment
            ``sources``, ``extensions``, ``timeout_s``, ``instructions``, ``header``.
        """
        return dict(self._asking.ask("POST", f"{_frame(expid, frame)}/assign", assignment))

    def build(self, expid: int, frame: int, *, wait_s: float = 60.0, **assignment: Any) -> dict[str, Any]:
        """Assign a frame, and wait until it is built; ``state`` of the answer says whether it is."""
        return dict(
            self._asking.ask("POST", f"{_frame(expid, frame)}/build", {**assignment, "wait_s": wait_s}, wait_s=wait_s)
        )

    def push(
        self,
        expid: int,
        frame: int,
        name: str,
        data: NDArray[Any] | bytes | Path | None = None,
        *,
        header: _JSON | None = None,
        source: str = "",
        clobber: bool = False,
    ) -> dict[str, Any]:
        """Push an extension; it is on the disk of the server when this returns.

        Parameters
        ----------
        data : array, bytes, Path or None
            Pixels, or a FITS file in memory or on disk; None: the header alone.
        header : mapping, optional
            Keyword -> value, or pair of value and comment; it goes over the one in a file.
        """
        place = f"{_frame(expid, frame)}/extensions/{name}"
        query = {"source": source, "clobber": clobber}
        return dict(self._asking.push(place, data, header or {}, query))

    def set_primary(self, expid: int, frame: int, header: _JSON, *, clobber: bool = False) -> dict[str, Any]:
        """Give cards for the primary header."""
        body = {"header": header, "clobber": clobber}
        return dict(self._asking.ask("PUT", f"{_frame(expid, frame)}/primary", body))

    def frame(self, expid: int, frame: int) -> dict[str, Any]:
        """Return a frame as it stands."""
        return dict(self._asking.ask("GET", _frame(expid, frame)))

    def exposure(self, expid: int) -> dict[str, Any]:
        """Return an exposure as it stands."""
        return dict(self._asking.ask("GET", f"/exposures/{expid}"))

    def exposures(self) -> list[dict[str, Any]]:
        """Return all exposures."""
        return list(self._asking.ask("GET", "/exposures"))

    # what becomes of it

    def write(self, expid: int, frame: int | None = None, **order: Any) -> list[str]:
        """Write a frame, or all; returns the files.

        Parameters
        ----------
        order
            ``image_dir``, ``image_name``, ``extra_headers``, ``clobber``, ``overwrite``, ``exclude``, ``compress``,
            ``add_on``, ``add_frame``.
        """
        return list(self._asking.ask("POST", f"{_place(expid, frame)}/write", order)["files"])

    def plot(self, expid: int, frame: int | None = None, **options: Any) -> list[str]:
        """Make pictures; options are those that begin with ``plot_``, and ``png_dir``."""
        return list(self._asking.ask("POST", f"{_place(expid, frame)}/plot", options)["files"])

    def send(self, expid: int, frame: int | None = None, *, wait_s: float = 30.0, **order: Any) -> list[dict[str, Any]]:
        """Send a frame, or all, to receivers; what is not delivered in time is tried on.

        Parameters
        ----------
        order
            ``send_to``, ``send_command``, ``dark_subtract``, ``extra_headers``, ``clobber``, ``exclude``,
            ``all_fields``.
        """
        return list(
            self._asking.ask("POST", f"{_place(expid, frame)}/send", order, query={"wait_s": wait_s}, wait_s=wait_s)[
                "reports"
            ]
        )

    def get_image(self, path: Path, expid: int, frame: int | None = None, **order: Any) -> Path:
        """Fetch a frame as a FITS file, or all frames as a tar archive of such files.

        Parameters
        ----------
        order
            ``dark_subtract``, ``extra_headers``, ``clobber``, ``exclude``, ``all_fields``.
        """
        return self._asking.fetch("POST", f"{_place(expid, frame)}/image", path, order)

    def get_extension(self, path: Path, expid: int, frame: int, name: str) -> Path:
        """Fetch an extension as it came."""
        return self._asking.fetch("GET", f"{_frame(expid, frame)}/extensions/{name}", path)

    def clear(
        self,
        expid: int | None = None,
        frame: int | None = None,
        extension: str | None = None,
        *,
        unsaved: str = "refuse",
    ) -> int:
        """Drop exposures, frames or extensions; what is not saved stays, unless `unsaved` is ``discard``."""
        place = "/exposures" if expid is None else _place(expid, frame)
        place += f"/extensions/{extension}" if extension else ""
        return int(self._asking.ask("DELETE", place, query={"unsaved": unsaved})["cleared"])

    def finalize(self, expid: int, **notes: Any) -> dict[str, Any]:
        """Say that no further frames come."""
        return dict(self._asking.ask("POST", f"/exposures/{expid}/finalize", {"notes": notes}))

    def archive(self, expid: int, *, wait: bool = False, wait_s: float = 3600.0, **order: Any) -> str | None:
        """Make the cube; returns where it is, or None while it is being made.

        Parameters
        ----------
        order
            ``add2primary``, ``add2secondary``, ``add2metadata``, ``compress``, ``archive_dir``.
        """
        body = {**order, "wait": wait}
        answer = self._asking.ask("POST", f"/exposures/{expid}/archive", body, wait_s=wait_s if wait else 0.0)
        return str(answer["archive"]) if answer["archive"] else None

    def get_archive(self, path: Path, expid: int) -> Path:
        """Fetch the cube."""
        return self._asking.fetch("GET", f"/exposures/{expid}/archive", path)

    def write_archive(self, expid: int, directory: str | Path, *, overwrite: bool = False) -> str:
        """Have the cube copied to a directory of the server."""
        order = {"directory": str(directory), "overwrite": overwrite}
        return str(self._asking.ask("POST", f"/exposures/{expid}/archive/write", order)["archive"])

    def send_archive(self, expid: int, *, wait_s: float = 30.0, **order: Any) -> list[dict[str, Any]]:
        """Send the cube; order as in `send`."""
        return list(
            self._asking.ask(
                "POST", f"/exposures/{expid}/archive/send", order, query={"wait_s": wait_s}, wait_s=wait_s
            )["reports"]
        )

    # regions of interest

    def rois(self) -> dict[str, Any]:
        """Count stamps and their bytes."""
        return dict(self._asking.ask("GET", "/rois"))

    def accept_rois(self, rois: Sequence[_JSON], *, expid: int | None = None) -> int:
        """Set the regions of an exposure, or those of all that bring none."""
        return int(self._asking.ask("POST", "/rois", {"rois": list(rois)}, query={"expid": expid})["accepted"])

    def clear_rois(self, expid: int | None = None, frame: int | None = None, extension: str | None = None) -> int:
        """Drop stamps."""
        given = {"expid": expid, "frame": frame, "extension": extension}
        return int(self._asking.ask("DELETE", "/rois", query=given)["cleared"])

    def finalize_rois(self, expid: int) -> dict[str, Any]:
        """Say that no further stamps come."""
        return dict(self._asking.ask("POST", f"/exposures/{expid}/rois/finalize", None))

    def archive_rois(self, expid: int, **order: Any) -> str:
        """Have the cube of stamps written."""
        return str(self._asking.ask("POST", f"/exposures/{expid}/rois/archive", order)["archive"])

    def send_rois(self, expid: int, **order: Any) -> list[dict[str, Any]]:
        """Send the stamps."""
        return list(self._asking.ask("POST", f"/exposures/{expid}/rois/send", order)["reports"])

    def write_rois(self, expid: int, **order: Any) -> list[str]:
        """Have the stamps of each frame written."""
        return list(self._asking.ask("POST", f"/exposures/{expid}/rois/write", order)["files"])

    def get_rois(self, path: Path, expid: int) -> Path:
        """Fetch the stamps as a tar archive."""
        return self._asking.fetch("GET", f"/exposures/{expid}/rois", path)

    # the builder as a whole

    def status(self) -> dict[str, Any]:
        """Return the state of the builder."""
        return dict(self._asking.ask("GET", "/status"))

    def config(self) -> dict[str, Any]:
        """Return the options."""
        return dict(self._asking.ask("GET", "/config"))

    def set(self, **changes: Any) -> dict[str, Any]:
        """Change options; returns all of them."""
        return dict(self._asking.ask("PATCH", "/config", changes))

    def get(self, what: str, **options: Any) -> Any:
        """Answer by the names that instrument control systems use."""
        return self._asking.ask("GET", f"/get/{what}", query=options)

    def configure(self, constants: str = "DEFAULT", *, unsaved: str = "refuse") -> dict[str, Any]:
        """Begin anew."""
        return dict(self._asking.ask("POST", "/configure", {"constants": constants, "unsaved": unsaved}))

    def hooks(self) -> list[dict[str, Any]]:
        """Return the subscribers."""
        return list(self._asking.ask("GET", "/hooks"))

    def subscribe(self, stage: str, target: str, args: Sequence[Any] = (), *, enabled: bool = True) -> str:
        """Have somebody told after ``built``, ``saved``, ``sent`` or ``archived``; returns an id."""
        body = {"stage": stage, "target": target, "args": list(args), "enabled": enabled}
        return str(self._asking.ask("POST", "/hooks", body)["id"])

    def enable(self, subscriber: str, *, enabled: bool) -> None:
        """Tell a subscriber again, or no more for now."""
        self._asking.ask("PATCH", f"/hooks/{subscriber}", {"enabled": enabled})

    def unsubscribe(self, subscriber: str) -> None:
        """Tell a subscriber no more."""
        self._asking.ask("DELETE", f"/hooks/{subscriber}")

    def events(self, after: int | None = None, *, most: int | None = None) -> Iterator[dict[str, Any]]:
        """Give events as they happen, each with ``number``, ``name`` and its data; without `after`, from now on."""
        return self._asking.listen("/events", {"after": after, "most": most})


def _frame(expid: int, frame: int) -> str:
    return f"/exposures/{expid}/frames/{frame}"


def _place(expid: int, frame: int | None) -> str:
    return f"/exposures/{expid}" if frame is None else _frame(expid, frame)
