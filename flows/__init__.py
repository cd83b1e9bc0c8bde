"""When, and in what order: Prefect flows, wiring only."""
