"""The memory plan: what a training step takes on a GPU, found on a machine without one, before anything is loaded."""
