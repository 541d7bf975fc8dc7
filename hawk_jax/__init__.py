"""HAWK: head-importance-aware visual token pruning, as pure functions on arrays.

Knows no model, no file of a checkpoint, no flag. `importance` weighs heads, `scoring` scores visual tokens, `selection`
and `selectors` pick them, `prompt` puts the pruned prompt together.
"""

from hawk_jax import importance
from hawk_jax import prompt
from hawk_jax import scoring
from hawk_jax import selection
from hawk_jax import selectors

__all__ = ["importance", "prompt", "scoring", "selection", "selectors"]
