"""State labels: what a label is, label files, and labels aligned from annotations."""
