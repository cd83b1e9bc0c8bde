"""The end of a night: ledger, directory and expectation compared, every difference named."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from nightglass.ledger.catalogue import Catalogue
from nightglass.ledger.queries import Queries
from nightglass.ledger.records import Difference, DifferenceKind, Entry, Reconciliation
from nightglass.model import Night, Product, ProductKind, State

__all__ = ["reconcile"]


def reconcile(
    queries: Queries,
    catalogue: Catalogue,
    *,
    night: Night,
    camera: str,
    files: Iterable[Path],
    expected: Collection[str] = (),
    product_files: Iterable[Path] = (),
    purged: Collection[Path] = (),
) -> Reconciliation:
    """Compare what the ledger says of a night with what is on disk and with what was expected.

    Parameters
    ----------
    files : iterable of Path
        Raw files on disk. One that the ledger holds under another night is no difference.
    expected : collection of str
        Exposure ids, or their last parts, that should have come.
    product_files : iterable of Path
        Products on disk under their final names; empty: not compared in this direction.
    purged : collection of Path
        Raw files that were deleted because they are archived: that they are gone is no difference.
    """
    entries = list(queries.entries(night, camera))
    products = catalogue.products(night, camera)
    differences = [
        *_files(entries, files, is_known=lambda path: queries.knows(path, camera), purged=purged),
        *_unfinished(entries),
        *_products(entries, products),
        *_unknown_products(products, product_files),
        *_missing(entries, expected),
    ]
    return Reconciliation(
        night=night,
        camera=camera,
        counts=queries.counts(night, camera),
        differences=tuple(sorted(differences, key=lambda item: (item.kind, item.subject))),
    )


def _files(
    entries: Iterable[Entry], files: Iterable[Path], *, is_known: Callable[[Path], bool], purged: Collection[Path]
) -> Iterator[Difference]:
    by_path = {entry.path: entry for entry in entries}
    on_disk = set(files)
    for path in on_disk - by_path.keys():
        if not is_known(path):
            yield Difference(kind=DifferenceKind.UNRECORDED, subject=str(path), detail="never seen by a sensor")
    for path, entry in by_path.items():
        size = _size(path)
        if size is None:
            if entry.cause != "Duplicate" and path not in purged:  # the second name of a file may go away
                yield Difference(kind=DifferenceKind.GONE, subject=_name(entry), detail=f"{path}, {entry.state.value}")
        elif size != entry.size:
            detail = f"{path} has {size} bytes, the ledger saw {entry.size}"
            yield Difference(kind=DifferenceKind.CHANGED, subject=_name(entry), detail=detail)


def _unfinished(entries: Iterable[Entry]) -> Iterator[Difference]:
    for entry in entries:
        if not entry.is_final:
            detail = f"{entry.state.value}: {entry.reason}" if entry.reason else entry.state.value
            yield Difference(kind=DifferenceKind.UNFINISHED, subject=_name(entry), detail=detail)


def _products(entries: Iterable[Entry], products: Iterable[Product]) -> Iterator[Difference]:
    reduced = {product.key for product in products if product.kind is ProductKind.REDUCED}
    for entry in entries:
        if entry.state is State.REDUCED and entry.exposure_id not in reduced:
            yield Difference(kind=DifferenceKind.NO_PRODUCT, subject=entry.exposure_id)
    for product in products:
        size = _size(product.path)
        if size != product.size:
            detail = f"{product.kind.value} {product.path}"
            detail += " is not there" if size is None else f" has {size} bytes, {product.size} were written"
            yield Difference(kind=DifferenceKind.PRODUCT_GONE, subject=product.key, detail=detail)


def _unknown_products(products: Iterable[Product], files: Iterable[Path]) -> Iterator[Difference]:
    known = {product.path for product in products}
    for path in set(files) - known:
        yield Difference(kind=DifferenceKind.UNKNOWN_PRODUCT, subject=str(path))


def _missing(entries: Iterable[Entry], expected: Collection[str]) -> Iterator[Difference]:
    came = {name for entry in entries for name in (entry.exposure_id, entry.parent)}
    came |= {name.rsplit("/", 1)[-1] for name in came}
    for name in expected:
        if name not in came:
            yield Difference(kind=DifferenceKind.MISSING, subject=name, detail="expected, never came")


def _name(entry: Entry) -> str:
    return entry.exposure_id or str(entry.path)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return None
