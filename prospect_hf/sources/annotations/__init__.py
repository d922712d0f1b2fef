"""Readers of the sources' own annotation releases: one file a source."""
