"""What a finished model folder shows on the Hub."""
