"""Policy around the library: retries, ledger transitions, artifacts."""
