"""Ways to use a model on labels, side by side: frozen, fine-tuned, from scratch, and with fewer labels."""
