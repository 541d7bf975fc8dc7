"""Absl apps, one question a researcher asks in each."""

import models  # noqa: F401  # before transformers, which it keeps from advising torch
