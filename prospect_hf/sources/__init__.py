"""Readers: from a corpus on disk to sessions."""
