"""The demo in a browser; it needs gradio (extra ``demo``)."""

from prospect_hf.streaming.demo.app import build_app, launch, write_space

__all__ = ["build_app", "launch", "write_space"]
