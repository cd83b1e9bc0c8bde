"""What a received body turns out to be: which of its HDUs is the extension, where it lies, and what it is known by."""

from __future__ import annotations

import contextlib
import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from nightglass.builder.headertext import merged_text, parsed
from nightglass.builder.instructions import instructions_in, merged
from nightglass.builder.records import NO_INSTRUCTIONS, ExtensionRecord, FrameView, Instructions
from nightglass.builder.spool import Body, Spool
from nightglass.config import Limits
from nightglass.errors import Misconfigured, Rejected, Retryable
from nightglass.fitsio.cards import BLOCK, CARD, repair_cards
from nightglass.fitsio.headers import HduInfo, scan_headers
from nightglass.model import Night

__all__ = ["Delivery", "Opening", "content_sum", "describe", "primary_text", "recorded", "words_among", "words_in"]

_LIMITS: Final = Limits(header_blocks=(2 << 20) // BLOCK, hdus=256)
_GZIP: Final = b"\x1f\x8b"
_MAY_BE_A_WORD: Final = re.compile(
    rb"HIERARCH|EXPTIME|EXPID|FRAME|(?:LOCAL|IMAGE|ARCHIVE|SUB|MEM|FILE|SEND|CB|IB)_|COMPRESS|AUTOTRIE", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Opening:
    """How a frame that is not there is opened: in which night, and when it is built if nobody says of what."""

    night: Night
    deadline: float
    instructions: Instructions


@dataclass(frozen=True, slots=True)
class Delivery:
    """An extension on its way into a frame.

    Attributes
    ----------
    body : Body or None
        None: cards alone.
    cards : str
        That came beside the body, one a line.
    described : ExtensionRecord or None
        What the body turned out to be, see `describe`.
    """

    name: str
    body: Body | None
    cards: str
    source: str
    clobber: bool
    instructions: Instructions = NO_INSTRUCTIONS
    described: ExtensionRecord | None = None


def content_sum(body: Body | None, cards: str) -> str:
    """Return what an extension is known by: a hash of the body and of the cards that came beside it."""
    if not cards:
        return body.sha256 if body is not None else ""
    return hashlib.sha256(f"{body.sha256 if body is not None else ''}\n{cards}".encode()).hexdigest()


def describe(body: Body, name: str) -> ExtensionRecord:
    """Return where the extension is in a body; its path is still the passing one.

    The body is a FITS file. Of several HDUs with data that one is taken whose EXTNAME is the name; one that stands
    alone may be called anything.

    Raises
    ------
    Rejected
        If the body is no FITS file, is not whole, or leaves open which HDU is meant.
    """
    headers = _headers(body)
    holding = [info for info in headers if info.data_size]
    if len(holding) > 1:
        holding = [info for info in holding if info.name.upper() == name]
        if len(holding) != 1:
            named = ", ".join(info.name or f"HDU {info.index}" for info in headers if info.data_size)
            message = f"the body for {name} has several HDUs with data: {named}"
            raise Rejected(message, remedy="send each of them by itself, under its name")
    chosen = holding[0] if holding else headers[-1]
    return ExtensionRecord(
        name=name,
        path=body.path,
        hdu=chosen.index,
        header_offset=chosen.header_offset,
        data_offset=chosen.data_offset,
        data_size=chosen.data_size,
        shape=chosen.shape,
        bitpix=chosen.bitpix,
        size=body.size,
        sha256=body.sha256,
        compressed=chosen.is_compressed_image,
    )


def words_in(body: Body, described: ExtensionRecord) -> Instructions:
    """Return the control words of the header in a body.

    A camera may use such a word for something else: what does not fit is left out, and its image taken.
    """
    with body.path.open("rb") as stream:
        stream.seek(described.header_offset)
        block = stream.read(described.data_offset - described.header_offset)
    places = [at for at in range(0, len(block), CARD) if _MAY_BE_A_WORD.match(block, at)]
    cards, _ = repair_cards(b"".join(block[at : at + CARD] for at in places))
    return words_among("\n".join(cards))


def words_among(text: str) -> Instructions:
    """Return the control words among cards, one a line; what does not fit is left out."""
    header, found = parsed(text), NO_INSTRUCTIONS
    for keyword in header:
        if keyword:
            with contextlib.suppress(Misconfigured):
                found = merged(found, instructions_in({keyword: header[keyword]}))
    return found


def recorded(
    spool: Spool, view: FrameView, described: ExtensionRecord | None, delivery: Delivery, now: float
) -> ExtensionRecord:
    """Return the record of an extension of a frame, and give its body its name.

    Parameters
    ----------
    described : ExtensionRecord or None
        What its body turned out to be; None: cards alone came, for an extension that is there.

    Raises
    ------
    Rejected
        If there is none to which the cards could belong.
    SpoolFull
        If the file system refuses.
    """
    there = next((item for item in view.extensions if item.name == delivery.name), None)
    number = there.number + 1 if there is not None else 1
    sha256 = content_sum(delivery.body, delivery.cards)
    if described is None or delivery.body is None:
        if there is None:
            message = f"{delivery.name} of frame {view.expid}/{view.frame} came without data"
            raise Rejected(message, remedy="send pixels, or give cards to an extension that is there")
        cards = merged_text(there.cards, delivery.cards)
        return replace(there, cards=cards, sha256=sha256, received_at=now, number=number)
    path = spool.place(replace(delivery.body, sha256=sha256), view.directory, delivery.name)
    described = replace(described, path=path, source=delivery.source, cards=delivery.cards)
    return replace(described, sha256=sha256, received_at=now, number=number)


def primary_text(body: Body) -> str:
    """Return the cards of a body that holds a primary header, one a line.

    Raises
    ------
    Rejected
        If it is no FITS file, or its primary HDU holds data.
    """
    first = _headers(body)[0]
    if first.data_size:
        message = "the body for the primary header holds pixels"
        raise Rejected(message, remedy="the primary extension has cards only; send pixels under a name of their own")
    with body.path.open("rb") as stream:
        cards, _ = repair_cards(stream.read(first.data_offset))
    return "\n".join(card for card in cards if not card.startswith(("SIMPLE", "BITPIX", "NAXIS", "EXTEND")))


def _headers(body: Body) -> tuple[HduInfo, ...]:
    _check_plain(body.path)
    try:
        return scan_headers(body.path, _LIMITS)
    except Retryable as error:  # it was received whole, so it will not grow
        message = f"the body of {body.size} bytes is not a whole FITS file: {error.message.partition(': ')[2]}"
        raise Rejected(message, remedy="send it again, whole") from error
    except Rejected as error:
        message = error.message.replace(str(body.path), "the body")
        raise Rejected(message, remedy="send a FITS file, or bare pixels with their header") from error


def _check_plain(path: Path) -> None:
    with path.open("rb") as stream:
        if stream.read(2) == _GZIP:
            message = "the body is compressed with gzip"
            raise Rejected(message, remedy="send plain FITS, or FITS with compressed tiles")
