"""State labels: step spans, label files, and alignment of annotated segments with a plan."""
