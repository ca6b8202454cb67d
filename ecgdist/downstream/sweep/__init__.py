"""Sweeps: many fine-tuning runs with Ray Tune, of which the validation split chooses one."""
