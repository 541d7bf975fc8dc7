"""Programs compiled for TPU slices that are not at hand, and what they cost."""
