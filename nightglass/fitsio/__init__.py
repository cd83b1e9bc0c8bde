"""FITS files: what is in them, whether they are whole, their pixels; products, and how they appear."""

from nightglass.fitsio.atomic import part_path, publish, remove_stale_parts, write_atomic
from nightglass.fitsio.checksums import content_id
from nightglass.fitsio.completeness import Completeness, Inspection, check_complete, inspect
from nightglass.fitsio.headers import HduInfo, scan_headers
from nightglass.fitsio.products import ProductReader, read_product, read_strip
from nightglass.fitsio.reading import read_raw
from nightglass.fitsio.writing import write_product

__all__ = [
    "Completeness",
    "HduInfo",
    "Inspection",
    "ProductReader",
    "check_complete",
    "content_id",
    "inspect",
    "part_path",
    "publish",
    "read_product",
    "read_raw",
    "read_strip",
    "remove_stale_parts",
    "scan_headers",
    "write_atomic",
    "write_product",
]
