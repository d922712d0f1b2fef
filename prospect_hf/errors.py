"""The two ways in which a run is refused: what it was given, or what it was told to do."""

from __future__ import annotations


class DataError(ValueError):
    """A record, label or frame cannot be used.

    The message is one sentence that names the file, the record and the key, and says what is wrong.
    """


class UsageError(ValueError):
    """A command was given something it cannot work with: an unknown key, a missing folder, a wrong checkpoint."""
