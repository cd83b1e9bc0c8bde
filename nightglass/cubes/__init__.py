"""FITS data cubes: planned from headers, moved as bytes, joined when compressed, verified, and taken apart again."""
