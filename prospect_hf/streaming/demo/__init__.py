"""The demo in a browser; it needs gradio (extra ``demo``)."""

import os

from prospect_hf.extras import missing

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
try:
    import gradio as gradio
except ImportError as error:
    raise missing("The demo", "gradio", "demo") from error
