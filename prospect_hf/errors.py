"""The two errors of this package that a user can mend: in the data, or in the command."""

from __future__ import annotations


class DataError(ValueError):
    """A record, label or frame is invalid.

    The message is one sentence: the file, the record and the key, what is wrong, and what to do.
    """


class UsageError(ValueError):
    """A command has an invalid argument: an unknown key, a missing folder, a wrong checkpoint."""
