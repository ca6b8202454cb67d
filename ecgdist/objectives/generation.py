"""The generative methods there are. To add one: its file, its line here, and its settings in `GenerativeConfig`."""

from __future__ import annotations

from ecgdist.objectives.part import GenerativePart
from ecgdist.objectives.reconstruction import Reconstruction
from ecgdist.objectives.wav2vec import Wav2Vec

METHODS: dict[str, type[GenerativePart]] = {"reconstruction": Reconstruction, "wav2vec": Wav2Vec}
"""Generative methods by their name in a configuration."""
