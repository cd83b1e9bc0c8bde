"""The stack of a group: made when its members are reduced, and again when one of them was reduced anew."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from nightglass.errors import NightglassError
from nightglass.fitsio import part_path, publish
from nightglass.layout import Layout
from nightglass.ledger import Entry, GroupRecord
from nightglass.model import Product, ProductKind, Quality, State, content_key

if TYPE_CHECKING:
    from nightglass.config import Camera, Observatory
    from nightglass.ledger import Ledger
    from nightglass.pool import Pool

__all__ = ["stack_group"]

_log = logging.getLogger(__name__)


def stack_group(
    group_id: str, *, ledger: Ledger, pool: Pool, observatory: Observatory, camera: Camera
) -> tuple[Product | None, tuple[str, ...]]:
    """Stack the reduced members of a group, unless the same stack exists.

    Returns
    -------
    product : Product or None
        None where the rule asks for no stack, or it cannot be made.
    notes : tuple of str
        Why there is none, or who was left out.
    """
    record = ledger.find_group(group_id)
    if record is None or not _wanted(record, camera):
        return None, ()
    entries = {entry.exposure_id: entry for entry in ledger.entries(ids=record.members)}
    members = [entries[name] for name in record.members if name in entries and entries[name].state is State.REDUCED]
    if len(members) < 2:
        return None, (f"{len(members)} of {len(record.members)} members are reduced: no stack",)
    checksums = {entry.exposure_id: _checksum(entry, ledger) for entry in members}
    inputs = tuple(checksums[entry.exposure_id] for entry in members)
    for product in ledger.products_of(group_id):
        if product.kind is ProductKind.STACK and product.inputs == inputs and product.path.is_file():
            return product, ()
    try:
        return _make(record, members, inputs, ledger=ledger, pool=pool, observatory=observatory)
    except NightglassError as error:
        _log.warning("no stack of %s: %s", group_id, error)
        return None, (f"no stack: {error}",)


def _wanted(record: GroupRecord, camera: Camera) -> bool:
    return any(rule.name == record.rule and rule.stack and rule.members == "numbered" for rule in camera.groups)


def _checksum(entry: Entry, ledger: Ledger) -> str:
    products = ledger.products_of(entry.exposure_id)
    return next((product.checksum for product in products if product.kind is ProductKind.REDUCED), "")


def _make(
    record: GroupRecord,
    members: list[Entry],
    inputs: tuple[str, ...],
    *,
    ledger: Ledger,
    pool: Pool,
    observatory: Observatory,
) -> tuple[Product, tuple[str, ...]]:
    from nightglass.stacks import StackMember, StackSpec, combine_group

    layout = Layout(observatory.root)
    path = layout.stack(record.camera, record.night, record.group_id)
    part = part_path(path, content_key(record.group_id, *inputs))
    part.parent.mkdir(parents=True, exist_ok=True)
    spec = StackSpec(
        group_id=record.group_id,
        camera=record.camera,
        night=record.night.label,
        members=tuple(
            StackMember(
                exposure_id=entry.exposure_id,
                path=layout.reduced(entry.ref),
                content_id=entry.content_id,
                quality=entry.quality or Quality.OK,
            )
            for entry in members
            if entry.ref is not None
        ),
        part=part,
        complete=record.complete,
        memory_mib=observatory.reduction.calibration_memory_mib,
    )
    result = pool.submit(combine_group, spec, key=f"stack {record.group_id}").result()
    publish(part, path)
    product = Product(
        kind=ProductKind.STACK,
        key=record.group_id,
        path=path,
        checksum=result.checksum,
        size=result.size,
        inputs=inputs,
    )
    ledger.add_product(product, night=record.night, camera=record.camera)
    return product, result.notes
