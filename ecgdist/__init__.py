"""Distributed, reproducible pretraining of ECG foundation models."""
