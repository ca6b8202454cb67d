"""Pure functions on arrays of ECG samples: resampling, filtering, quality, augmentation."""
