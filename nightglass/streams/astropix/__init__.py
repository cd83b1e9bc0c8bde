"""AstroPix: pixel chips whose readouts travel as datagrams and are kept in ``.apx`` files."""
