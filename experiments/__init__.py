"""Commands: each file here is one, and the folders hold what commands share."""

import models  # noqa: F401  # before transformers, which it keeps from advising torch
