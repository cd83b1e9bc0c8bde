"""Stream protocols as state machines: bytes in, messages out, and encoders beside them."""
