"""Model inputs: frame rows grouped by session, pictures or encoded frames, and clips for training."""
