"""Evaluation on benchmark files: what is planned, asked, answered, scored and reported; see `experiments.evaluate`."""
