"""The image builder: exposures under construction, collected, built, written, sent and archived."""
