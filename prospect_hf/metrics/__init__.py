"""Metrics as plain functions: from predictions and references to counts, and from sums of counts to figures."""
