"""What the model reads: rows of sessions, pictures or encoded frames, and the clips that training packs."""
