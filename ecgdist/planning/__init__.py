"""What a pretraining run will take, reckoned before it starts."""
