"""prospect-hf: a SmolVLM2 that follows a task in a video stream, and speaks when there is something to say.

This module stays empty but for the version, so that ``import prospect_hf`` costs nothing: import what you need from
the rooms below (``data``, ``sources``, ``simulator``, ``training``, ``evaluation``).
"""

__version__ = "0.1.0"
