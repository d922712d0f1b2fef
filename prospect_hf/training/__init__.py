"""Training: losses, arguments and the trainer. Knows batches, and nothing of where they came from."""
