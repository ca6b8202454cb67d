"""What a pretrained encoder is good for: tasks, metrics with intervals, and the linear probe."""
