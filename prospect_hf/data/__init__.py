"""Rows and pixels: the frame-row builder, the frame stores and the clips that training reads."""
