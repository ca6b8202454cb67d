"""Encoders, decoders and heads: tensors in, tensors out."""
