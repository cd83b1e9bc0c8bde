"""What a worker keeps between exposures: masters and bad-pixel masks, within a bound."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from nightglass.config.camera import Camera
from nightglass.errors import Misconfigured, Waiting
from nightglass.image import Image
from nightglass.model import MasterRef
from nightglass.steps.step import LoadedMaster

__all__ = ["FileCache", "bad_pixels", "load_master"]

T = TypeVar("T")

_MASTER_BYTES = 768 << 20
"""Masters that a worker keeps: 18 of 2048x2048."""
_MASK_BYTES = 64 << 20


class FileCache(Generic[T]):
    """What was read from files, least recently used out first.

    A file that changed (size, time or inode) is read again.

    Parameters
    ----------
    limit : int
        Bytes; one larger item is not kept at all.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: OrderedDict[Path, tuple[tuple[int, int, int], T, int]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Bytes held."""
        return sum(size for _, _, size in self._items.values())

    def get(self, path: Path, read: Callable[[Path], tuple[T, int]]) -> T:
        """Return what a file holds; `read` gives it, and its bytes in memory, when it is not here.

        Raises
        ------
        OSError
            If the file cannot be looked at.
        """
        status = path.stat()
        stamp = (status.st_size, status.st_mtime_ns, status.st_ino)
        with self._lock:
            kept = self._items.get(path)
            if kept is not None and kept[0] == stamp:
                self._items.move_to_end(path)
                return kept[1]
        value, size = read(path)
        with self._lock:
            self._items.pop(path, None)
            if size <= self._limit:
                self._items[path] = (stamp, value, size)
            while self.size > self._limit:
                self._items.popitem(last=False)
        return value

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._items.clear()


_MASTERS: FileCache[tuple[Image, ...]] = FileCache(_MASTER_BYTES)
_MASKS: FileCache[NDArray[np.bool_]] = FileCache(_MASK_BYTES)


def load_master(ref: MasterRef) -> LoadedMaster:
    """Read a master, or take it from the worker's memory.

    Raises
    ------
    Waiting
        If its file is gone or cannot be read: the exposure is redone when there is another.
    """
    try:
        return LoadedMaster(ref=ref, images=_MASTERS.get(ref.path, _read_master))
    except OSError as error:
        message = f"master {ref.kind} {ref.master_id} cannot be read from {ref.path}: {error}"
        raise Waiting(message, remedy="put the file back, or make the masters of its night again") from error


def _read_master(path: Path) -> tuple[tuple[Image, ...], int]:
    from nightglass.fitsio import read_product

    images = tuple(read_product(path))
    for image in images:
        for array in (image.data, image.variance, image.mask):
            array.setflags(write=False)  # shared by all exposures to come
    return images, sum(image.data.nbytes + image.variance.nbytes + image.mask.nbytes for image in images)


def bad_pixels(camera: Camera) -> dict[str, NDArray[np.bool_]]:
    """Read the bad-pixel files of a camera's detectors, by detector.

    Raises
    ------
    Misconfigured
        If a file is missing or holds no two-dimensional image.
    """
    found = {}
    for detector in camera.detectors:
        if not detector.bad_pixels:
            continue
        try:
            found[detector.name] = _MASKS.get(Path(detector.bad_pixels), _read_mask)
        except (OSError, ValueError) as error:
            message = f"bad-pixel file {detector.bad_pixels} of detector {detector.name!r} cannot be read: {error}"
            raise Misconfigured(message, remedy="correct bad_pixels in the camera file") from error
    return found


def _read_mask(path: Path) -> tuple[NDArray[np.bool_], int]:
    from astropy.io import fits

    with fits.open(path, memmap=False) as hdus:
        for hdu in hdus:
            if getattr(hdu, "is_image", False) and hdu.data is not None and hdu.data.ndim == 2:
                mask = np.asarray(hdu.data != 0)
                mask.setflags(write=False)
                return mask, mask.nbytes
    message = "it holds no two-dimensional image"
    raise ValueError(message)
