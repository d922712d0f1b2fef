"""Makes state labels for a corpus: by meaning, by a language model, or by both; and compares two sets of labels."""
