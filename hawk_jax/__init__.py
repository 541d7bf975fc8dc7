"""HAWK: head-importance-aware visual token pruning, as pure functions on arrays.

This package knows no model, no checkpoint and no flag. `pruning` is the method on one screen, and `plans` its settings;
`importance` weights heads, `scoring` scores visual tokens, `budgets` says how many to keep, `selectors` pick them, and
`prompt` compacts the prompt.
"""

from hawk_jax import budgets
from hawk_jax import importance
from hawk_jax import plans
from hawk_jax import prompt
from hawk_jax import pruning
from hawk_jax import scoring
from hawk_jax import selectors
from hawk_jax import sweep
from hawk_jax.pruning import Plan
from hawk_jax.pruning import Pruning

__version__ = "0.2.0"

__all__ = ["Plan", "Pruning", "budgets", "importance", "plans", "prompt", "pruning", "scoring", "selectors", "sweep"]
