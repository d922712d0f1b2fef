"""A language model as judge of whole streamed dialogues."""
