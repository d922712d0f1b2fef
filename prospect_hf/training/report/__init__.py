"""The page of a training run: ``train_report.html`` in the model's folder."""
