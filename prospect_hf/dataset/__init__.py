"""The published dataset: the frame rows of ``dst_frames``, their builder, report and label balance."""
