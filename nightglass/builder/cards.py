"""Headers of what is handed on: the primary that a frame gets, and what is left out of headers that came."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final

from astropy.io import fits

from nightglass import __version__
from nightglass.builder.instructions import is_control_word
from nightglass.builder.records import ExposureView, FrameState, FrameView
from nightglass.config import BuilderOptions, Site
from nightglass.errors import Rejected
from nightglass.fitsio.product_cards import CardValue, make_cards, raw_cards
from nightglass.fitsio.structure import is_structural

__all__ = [
    "HeaderRules",
    "apply_extra",
    "compose_primary",
    "constant_cards",
    "kept_header",
]

_OURS: Final = ("EXTNAME", "EXPID", "FRAME", "PARTIAL")
"""What only the structure of exposures can say."""
_KEYWORD: Final = re.compile(r"[A-Z0-9_-]{1,8}")
_COMMENTARY: Final = frozenset({"COMMENT", "HISTORY", ""})
_MAX_EXTRA: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderRules:
    """What is left out of headers, and what is put in.

    Attributes
    ----------
    exclude : tuple of str
        Keywords or shell patterns of keywords, in capitals.
    all_fields : bool
        Leave nothing out.
    extra : mapping of str to value, or pair of value and comment
        For the primary header.
    clobber : bool
        Whether they may replace keywords that are there.
    """

    exclude: tuple[str, ...] = ()
    all_fields: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)
    clobber: bool = False

    def leaves_out(self, keyword: str) -> bool:
        """Tell whether a keyword is left out."""
        if self.all_fields or keyword in _COMMENTARY:
            return False
        return is_control_word(keyword) or any(fnmatchcase(keyword, pattern) for pattern in self.exclude)


def kept_header(header: fits.Header, rules: HeaderRules) -> fits.Header:
    """Return a header without what rules leave out."""
    if not any(rules.leaves_out(keyword) for keyword in header):
        return header
    return fits.Header([card for card in header.cards if not rules.leaves_out(card.keyword)])


def constant_cards(options: BuilderOptions, site: Site) -> dict[str, CardValue]:
    """Return the constants of every primary header: the site, the software, the time scale, what is configured.

    Latitude and longitude are text, as instruments have them.
    """
    cards: dict[str, CardValue] = {}
    if site.name:
        cards["OBSERVAT"] = (site.name, "observatory")
    if site.latitude is not None:
        cards["OBS-LAT"] = (f"{site.latitude:.5f}", "[deg] observatory latitude")
    if site.longitude is not None:
        cards["OBS-LONG"] = (f"{site.longitude:.5f}", "[deg] observatory east longitude")
    if site.latitude is not None or site.elevation_m:
        cards["OBS-ELEV"] = (float(site.elevation_m), "[m] observatory elevation")
    cards["TIMESYS"] = ("UTC", "time system")
    cards["SOFTVER"] = (options.software_version or f"nightglass {__version__}", "software version")
    return cards | dict(options.constants.get(options.constants_version, {}))


def compose_primary(
    exposure: ExposureView, frame: FrameView, options: BuilderOptions, site: Site, rules: HeaderRules
) -> fits.Header:
    """Compose the primary header of a frame.

    Exposure, frame and night are those of the builder; what was given says the rest, and constants what it does not.
    The same frame always gives the same header.

    Raises
    ------
    Rejected
        If extra headers are none.
    """
    ours: dict[str, CardValue] = {
        "EXTNAME": options.primary,
        "EXPID": (exposure.expid, "exposure number"),
        "FRAME": (frame.frame, "frame number"),
        "NIGHT": (int(exposure.night.label), "night, by the date of its evening"),
    }
    if frame.state is FrameState.PARTIAL or frame.missing:
        ours["PARTIAL"] = (True, f"{len(frame.missing)} of {len(frame.expected)} extensions did not come")
        ours |= {f"MISSING{number}": name for number, name in enumerate(frame.missing[:99], start=1)}
    given = kept_header(frame.primary_header, rules)
    module: dict[str, CardValue] = {"MODULE": (options.mode or options.module or options.role.upper(), "component")}
    defaults = {
        keyword: value
        for keyword, value in (module | constant_cards(options, site)).items()
        if keyword not in given and keyword not in ours and not rules.leaves_out(keyword)
    }
    repeated = [keyword for keyword in ("EXPID", "FRAME") if keyword in given]
    for keyword in repeated:  # a control word that stays in must not stand there twice
        given = _without(given, keyword)
    cards = [*make_cards(ours), *raw_cards(given, ours), *make_cards(defaults)]
    return apply_extra(_header(cards), rules.extra, clobber=rules.clobber)


def apply_extra(header: fits.Header, extra: Mapping[str, Any], *, clobber: bool) -> fits.Header:
    """Return a header with more cards; those that are there are replaced only with `clobber`.

    Raises
    ------
    Rejected
        If one is no keyword, describes the layout of a file, or says what only the builder can say.
    """
    if not extra:
        return header
    if len(extra) > _MAX_EXTRA:
        message = f"{len(extra)} extra headers are more than {_MAX_EXTRA}"
        raise Rejected(message, remedy="give them with the frame")
    changed = header.copy()
    for keyword, value in _checked(extra):
        if keyword in changed and not clobber:
            continue
        changed.remove(keyword, ignore_missing=True, remove_all=True)
        changed.extend(_header(make_cards({keyword: value})).cards, end=True)
    return changed


def _checked(extra: Mapping[str, Any]) -> Iterator[tuple[str, CardValue]]:
    for name, value in extra.items():
        keyword = str(name).upper()
        if not _KEYWORD.fullmatch(keyword) or is_structural(keyword) or keyword in _OURS or keyword in _COMMENTARY:
            message = f"{name!r} cannot be an extra header"
            raise Rejected(message, remedy="use another keyword: up to 8 of A-Z, 0-9, - and _")
        pair = tuple(value) if isinstance(value, (list, tuple)) else (value,)
        if not 1 <= len(pair) <= 2 or not isinstance(pair[0], (str, bool, int, float, type(None))):
            message = f"the value of the extra header {keyword} is {value!r}"
            raise Rejected(message, remedy="give a text, a number, true, false or nothing, perhaps with a comment")
        yield keyword, (pair[0], str(pair[1]) if len(pair) == 2 else "")


def _without(header: fits.Header, keyword: str) -> fits.Header:
    changed = header.copy()
    changed.remove(keyword, ignore_missing=True, remove_all=True)
    return changed


def _header(cards: Iterable[str]) -> fits.Header:
    return fits.Header.fromstring("".join(cards))
