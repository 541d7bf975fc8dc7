"""docs/method.md read literally, one prompt at a time, in float64: what hawk_jax is tested against.

All N x V logits are formed and averaged afterwards; every projection is made for every token.

Axes: S prompt, N query tokens, V visual tokens, H query heads, G key/value heads, d head dim, D hidden size.
"""

from __future__ import annotations

import math

import numpy as np

FLOAT32_EPSILON = float(np.finfo(np.float32).eps)


def rms_norm(x: np.ndarray, scale: np.ndarray, epsilon: float) -> np.ndarray:
  """x over the root mean square of its last axis, times a scale."""
  x = np.asarray(x, np.float64)
  return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + epsilon) * np.asarray(scale, np.float64)


def query_tokens(input_ids, visual_ids, vision_end_id: int | None, im_end_id: int | None) -> list[int]:
  """Indices of the instruction in one prompt without padding.

  Args:
    input_ids: [S].
    visual_ids: the placeholders' ids.
    vision_end_id: or None for models without one.
    im_end_id: end of message.
  """
  ids = [int(i) for i in input_ids]
  visual = [s for s, i in enumerate(ids) if i in visual_ids]
  vision_ends = [s for s, i in enumerate(ids) if i == vision_end_id]
  start = (vision_ends[-1] if vision_ends else visual[-1]) + 1
  im_ends = [s for s, i in enumerate(ids) if i == im_end_id and s > start]
  query = list(range(start, im_ends[-1] if im_ends else len(ids)))
  if not query and vision_ends:
    query = [vision_ends[-1]]
  return query


def head_scores(
  text: np.ndarray,
  visual: np.ndarray,
  query_weight: np.ndarray,
  key_weight: np.ndarray,
  query_bias: np.ndarray | None,
  key_bias: np.ndarray | None,
  num_heads: int,
  num_key_value_heads: int,
  query_norm: np.ndarray | None = None,
  key_norm: np.ndarray | None = None,
  epsilon: float = 0.0,
) -> np.ndarray:
  """Mean pre-RoPE attention logit of the query tokens to each visual token.

  Args:
    text: [N, D] query tokens after the first layer's input norm.
    visual: [V, D] visual tokens after it.
    query_weight: [H * d, D], as torch lays it out.
    key_weight: [G * d, D].
    query_bias: [H * d] or None.
    key_bias: [G * d] or None.
    num_heads: H.
    num_key_value_heads: G.
    query_norm: [d] scale of an RMSNorm of each head's queries, or None.
    key_norm: [d] scale of an RMSNorm of each head's keys, or None.
    epsilon: of these norms.

  Returns:
    [H, V] float64.
  """
  query = np.asarray(text, np.float64) @ np.asarray(query_weight, np.float64).T
  key = np.asarray(visual, np.float64) @ np.asarray(key_weight, np.float64).T
  if query_bias is not None:
    query = query + query_bias
  if key_bias is not None:
    key = key + key_bias
  head_dim = query.shape[1] // num_heads
  scores = np.zeros([num_heads, len(visual)])
  if not len(text):
    return scores
  for head in range(num_heads):
    group = head // (num_heads // num_key_value_heads)
    q = query[:, head * head_dim : (head + 1) * head_dim]
    k = key[:, group * head_dim : (group + 1) * head_dim]
    q = q if query_norm is None else rms_norm(q, query_norm, epsilon)
    k = k if key_norm is None else rms_norm(k, key_norm, epsilon)
    logits = q @ k.T / math.sqrt(head_dim)
    assert logits.shape == (len(text), len(visual))
    scores[head] = logits.mean(axis=0)
  scores[~np.isfinite(scores)] = 0.0
  return scores


def normalize(scores: np.ndarray, normalization: str) -> np.ndarray:
  """[H, V] to [H, V], head by head."""
  out = np.array(scores, np.float64)
  for head, row in enumerate(out):
    if normalization == "l2":
      out[head] = row / max(math.sqrt(sum(row * row)), 1e-12)
    elif normalization == "softmax":
      exponentials = np.exp(row - row.max())
      out[head] = exponentials / exponentials.sum()
    elif normalization == "minmax":
      out[head] = (row - row.min()) / max(row.max() - row.min(), FLOAT32_EPSILON)
    elif normalization != "none":
      raise ValueError(normalization)
  return out


def fuse(scores: np.ndarray, head_importance) -> np.ndarray:
  """[H, V] to [V], weighed by [H]."""
  fused = np.zeros(scores.shape[1])
  for weight, row in zip(np.asarray(head_importance, np.float64), scores, strict=True):
    fused += weight * row
  return fused


def count_to_keep(visual_count: int, keep_ratio: float, rounding: str = "ceil") -> int:
  """How many of a prompt's visual tokens stay, at least one."""
  count = math.ceil(visual_count * keep_ratio) if rounding == "ceil" else math.floor(visual_count * keep_ratio)
  return min(max(count, 1), visual_count)


def top_k(scores: np.ndarray, count: int) -> list[int]:
  """Indices of the `count` best, ascending; of equal ones the lower index."""
  ranking = sorted(range(len(scores)), key=lambda v: (-scores[v], v))
  return sorted(ranking[:count])


def gap_at_cut(scores: np.ndarray, count: int) -> float:
  """How far scores may be off before the choice changes, as a share of the largest magnitude; infinite if all are kept.

  Least kept minus best dropped; where those are equal, as the newlines of LLaVA-NeXT are, the tie rule decides between
  them, and what counts is how far other scores are.
  """
  if count >= len(scores):
    return math.inf
  ranked = sorted(scores, reverse=True)
  kept, dropped = ranked[count - 1], ranked[count]
  gap = kept - dropped if kept > dropped else min((abs(kept - other) for other in ranked if other != kept), default=math.inf)
  return float(gap / np.abs(scores).max())


def prune(
  input_ids,
  normed: np.ndarray,
  tensors: dict[str, np.ndarray],
  *,
  num_heads: int,
  num_key_value_heads: int,
  head_importance,
  normalization: str,
  visual_ids,
  vision_end_id: int | None,
  im_end_id: int | None,
  keep_ratio: float | None = None,
  keep_count: int | None = None,
  rounding: str = "ceil",
  epsilon: float = 0.0,
) -> tuple[list[int], float]:
  """The whole of sections 3 and 4 for one prompt.

  Args:
    input_ids: [S] without padding.
    normed: [S, D] merged embeddings after the first layer's input norm.
    tensors: `q_proj.weight`, `k_proj.weight` and, if there are any, `q_proj.bias`, `k_proj.bias`, `q_norm.weight`,
      `k_norm.weight` of the first layer.
    num_heads: H.
    num_key_value_heads: G.
    head_importance: [H].
    normalization: l2, softmax, minmax or none.
    visual_ids: the placeholders' ids.
    vision_end_id: or None.
    im_end_id: end of message.
    keep_ratio: in (0, 1].
    keep_count: number to keep instead; a prompt with fewer keeps all.
    rounding: of a ratio, ceil or floor.
    epsilon: of the norms of queries and keys.

  Returns:
    Prompt positions of all tokens kept, text and visual, ascending; and the score gap at the cut.
  """
  ids = [int(i) for i in input_ids]
  visual = [s for s, i in enumerate(ids) if i in visual_ids]
  if not visual:
    return list(range(len(ids))), math.inf
  query = query_tokens(ids, visual_ids, vision_end_id, im_end_id)
  _, first, group = np.unique(normed[visual], axis=0, return_index=True, return_inverse=True)
  raw = head_scores(
    normed[query],
    normed[visual],
    tensors["q_proj.weight"],
    tensors["k_proj.weight"],
    tensors.get("q_proj.bias"),
    tensors.get("k_proj.bias"),
    num_heads,
    num_key_value_heads,
    tensors.get("q_norm.weight"),
    tensors.get("k_norm.weight"),
    epsilon,
  )
  fused = fuse(normalize(raw, normalization), head_importance)
  fused = fused[first][group]  # equal tokens score equally, to the last bit
  count = min(keep_count, len(visual)) if keep_count else count_to_keep(len(visual), keep_ratio, rounding)
  dropped = set(visual) - {visual[v] for v in top_k(fused, count)}
  return [s for s in range(len(ids)) if s not in dropped], gap_at_cut(fused, count)
