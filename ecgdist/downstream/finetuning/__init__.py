"""Fine-tuning: an encoder and a readout trained on the labels of a task, by the engine of pretraining."""
