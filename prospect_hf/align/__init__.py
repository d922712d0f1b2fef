"""Assigns the timed lines of a video's annotation to the steps of its plan."""
