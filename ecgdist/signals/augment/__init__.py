"""Augmentations: what makes two views of one ECG differ, as pure functions on batches of microvolt signals."""

from ecgdist.signals.augment.choice import AUGMENTATIONS, AugmentConfig
from ecgdist.signals.augment.view import Augmentation, Randoms, View

__all__ = ["AUGMENTATIONS", "AugmentConfig", "Augmentation", "Randoms", "View"]
