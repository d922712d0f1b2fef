"""Training: settings, losses, the trainer, and the stages of the training job."""
