"""The library without the rest of the project prunes a prompt. Run where only hawk_jax is installed.

python -I tests/library_checks.py
"""

import importlib.util

import jax
import numpy as np

import hawk_jax
from hawk_jax.prompt import Prompt
from hawk_jax.scoring import Projections


def main():
  assert importlib.util.find_spec("models") is None and importlib.util.find_spec("experiments") is None
  rng = np.random.default_rng(0)
  heads, groups, head_dim, width, visual = 4, 2, 8, 32, 12
  normal = lambda *shape: rng.standard_normal(shape, np.float32)
  # Two text tokens, a picture, and a question of three tokens.
  order = np.r_[0:2, 2 + visual : 5 + visual][None].astype(np.int32)
  places = np.arange(2, 2 + visual, dtype=np.int32)[None]
  prompt = Prompt(
    text_tokens=np.zeros_like(order),
    text_order=order,
    text_positions=order[..., None],
    query_mask=order > places.max(),
    visual_slots=places - 2,
    visual_order=places,
    visual_positions=places[..., None],
    visual_places=places,
    visual_curve=places - 2,
    next_position=np.asarray([5 + visual], np.int32),
  )
  text, picture = normal(1, 5, width), normal(1, visual, width)
  projections = Projections(
    normal(width, heads, head_dim), normal(width, groups, head_dim), input_norm=np.ones(width, np.float32)
  )
  plan = hawk_jax.Pruning(keep_count=5).plan(prompt, heads, [0.4, 0.3, 0.2, 0.1])
  sequence = jax.jit(hawk_jax.pruning.prune)(prompt, text, picture, projections, plan)
  kept = np.asarray(sequence.order)[0]
  kept = kept[kept >= 0]
  assert set(order[0]) <= set(kept.tolist()) and len(kept) == 5 + 5, kept
  scores = np.asarray(hawk_jax.pruning.score(prompt, text, picture, projections, plan))[0]
  assert set(kept) - set(order[0]) == set((np.argsort(-scores)[:5] + 2).tolist())
  print(f"hawk_jax {hawk_jax.__version__} alone: kept {kept.tolist()}")


if __name__ == "__main__":
  main()
