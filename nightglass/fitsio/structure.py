"""Keywords that describe how a file is laid out, and so cannot travel with a header to another file."""

from __future__ import annotations

import re

__all__ = ["is_structural"]

_NAMES = frozenset(
    {
        *("SIMPLE", "XTENSION", "BITPIX", "NAXIS", "EXTEND", "PCOUNT", "GCOUNT", "GROUPS", "BLOCKED", "END"),
        *("BSCALE", "BZERO", "BLANK", "DATAMIN", "DATAMAX", "CHECKSUM", "DATASUM", "CHECKVER"),
        *("EXTNAME", "EXTVER", "EXTLEVEL", "INHERIT", "NEXTEND", "LONGSTRN"),
        *("TFIELDS", "THEAP"),
        *("ZIMAGE", "ZTABLE", "ZCMPTYPE", "ZBITPIX", "ZNAXIS", "ZQUANTIZ", "ZDITHER0", "ZBLANK", "ZMASKCMP"),
        *("ZSIMPLE", "ZTENSION", "ZEXTEND", "ZBLOCKED", "ZPCOUNT", "ZGCOUNT", "ZHECKSUM", "ZDATASUM"),
        *("FZALGOR", "FZTILE", "FZQVALUE", "FZQMETHD", "FZDTHRSD", "FZINT2F", "FZHSCALE"),
    }
)
_NUMBERED = re.compile(
    r"(?:NAXIS|ZNAXIS|ZTILE|ZNAME|ZVAL|TTYPE|TFORM|TUNIT|TNULL|TSCAL|TZERO|TDISP|TDIM|TBCOL|TDMIN|TDMAX|TLMIN|TLMAX"
    r"|PTYPE|PSCAL|PZERO)\d+"
)


def is_structural(keyword: str) -> bool:
    """Tell whether a keyword belongs to the layout, scaling, compression or checksum of its HDU."""
    return keyword in _NAMES or bool(_NUMBERED.fullmatch(keyword))
