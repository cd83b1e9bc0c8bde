"""Whom TLS connections trust, read once a process: reading costs a client more than all else of its making."""

from __future__ import annotations

import functools
import ssl

import httpx

__all__ = ["authorities", "packaged_authorities"]


@functools.cache
def authorities() -> ssl.SSLContext:
    """Return those that the environment names (SSL_CERT_FILE, SSL_CERT_DIR), or else those that come with httpx."""
    return httpx.create_ssl_context()


@functools.cache
def packaged_authorities() -> ssl.SSLContext:
    """Return those that come with httpx, whatever the environment names."""
    return httpx.create_ssl_context(trust_env=False)
