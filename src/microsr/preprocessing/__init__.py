"""From scans to training patches: HU, masks, resampling, patches, and the check of the two domains."""
