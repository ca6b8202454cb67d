"""The pretraining job: the step, its DeepSpeed engine, checkpoints, and the Ray Train job around them."""
