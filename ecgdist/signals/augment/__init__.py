"""Augmentations: what makes two views of one ECG differ, as pure functions on batches of microvolt signals."""

from ecgdist.signals.augment.choice import AUGMENTATIONS, AugmentConfig
from ecgdist.signals.augment.effect import Added, Effect, Kept, Replaced, Scaled, Waved
from ecgdist.signals.augment.view import Augmentation, Randoms, Rows, View

__all__ = [
    "AUGMENTATIONS",
    "Added",
    "AugmentConfig",
    "Augmentation",
    "Effect",
    "Kept",
    "Randoms",
    "Replaced",
    "Rows",
    "Scaled",
    "View",
    "Waved",
]
