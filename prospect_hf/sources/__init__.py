"""Readers that turn a corpus on disk into sessions."""
