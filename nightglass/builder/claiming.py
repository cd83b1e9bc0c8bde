"""Names of files for frames: which are a frame's own, which belong to another, and what is never written over."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from nightglass.builder.gates import Gates
from nightglass.builder.holdings import Holdings
from nightglass.builder.records import FrameView
from nightglass.builder.refusals import Exists
from nightglass.builder.structure import noted

__all__ = ["Claims"]


class Claims:
    """Claims names for frames, on the disk, before anything is written there: after a kill they are known."""

    def __init__(self, holdings: Holdings) -> None:
        self._holdings = holdings
        self._gate = Gates()

    @contextlib.contextmanager
    def writing(self, path: Path) -> Iterator[None]:
        """Let nobody else write under a name while the block runs."""
        with self._gate(hash(path), 0):
            yield

    def claim(self, view: FrameView, path: Path) -> FrameView:
        """Claim a name, if it is free."""
        if path in view.claims or os.path.lexists(path):
            return view
        return self._holdings.change(
            view.expid, view.frame, lambda current: replace(current, claims=(*current.claims, path))
        )

    def another(self, view: FrameView, path: Path) -> tuple[FrameView, Path]:
        """Claim a name, or if it belongs to something else, one like it: ``-2`` and so on."""
        for number in itertools.count(1):
            wanted = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
            if wanted in (*view.claims, view.published):
                return view, wanted
            after = self.claim(view, wanted)
            if after is not view:
                return after, wanted
        raise AssertionError(path)

    def take_over(self, view: FrameView, path: Path) -> None:
        """See to it that no frame is lost when one is written under a name that others may have.

        What another frame has there is not its copy any more, from before it is replaced.

        Raises
        ------
        Exists
            If it is all that is left of that frame.
        """
        if path in (*view.files, *view.claims) or not os.path.lexists(path):
            return
        key = view.expid, view.frame
        others = [other for other in self._holdings.frames() if path in other.files]
        others = [other for other in others if (other.expid, other.frame) != key]
        for other in others:
            if other.purged and not _is_elsewhere(other, path):
                message = f"{path} is all that is left of frame {other.expid}/{other.frame}"
                raise Exists(message, remedy="have frame numbers in names by add_frame, or archive that exposure first")
        for other in others:
            self._holdings.change(other.expid, other.frame, lambda current: _without(current, path, view))


def _is_elsewhere(view: FrameView, path: Path) -> bool:
    return "published" in view.times or "archived" in view.times or any(item != path for item in view.files)


def _without(view: FrameView, path: Path, by: FrameView) -> FrameView:
    files = tuple(item for item in view.files if item != path)
    claims = tuple(item for item in view.claims if item != path)
    times = view.times if files else {name: at for name, at in view.times.items() if name != "saved"}
    after = replace(view, files=files, claims=claims, times=times)
    return noted(after, f"{path.name} was replaced by frame {by.expid}/{by.frame}")
