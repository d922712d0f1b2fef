"""A stream of frames as it happened: run, recorded, and shown."""
