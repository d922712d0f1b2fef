"""The Space of this metric: a form to try it in."""

import evaluate
from evaluate.utils import launch_gradio_widget

if __name__ == "__main__":
    launch_gradio_widget(evaluate.load("speaking_chunks.py"))
