"""What a finished model folder shows on the Hub: its card and its evaluation entries."""
