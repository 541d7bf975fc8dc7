"""Online scoring: text-guided attention of the first layer without RoPE, weighed by head importance.

Axes: B batch, T text slots, V visual slots, H query heads, G key/value heads, d head dim, D hidden size.

METHOD section 3 (HAWK, arXiv 2604.07812, equations 4 to 6). The mean over query tokens is linear and so are the
projections, so a single mean query a head gives exactly the mean of all text-to-visual logits; multiplied into the key
projection it becomes one D-vector a head, and scoring costs V * D * H multiply-adds.
"""

from __future__ import annotations

from einops import rearrange
from flax import struct
import jax
import jax.numpy as jnp

NORMALIZATIONS = ("l2", "softmax", "minmax", "none")


@struct.dataclass
class Projections:
  """The first decoder layer's query and key projections.

  Attributes:
    query: [D, H, d] kernel.
    key: [D, G, d] kernel.
    query_bias: [H, d] or None.
    key_bias: [G, d] or None.
  """

  query: jax.Array
  key: jax.Array
  query_bias: jax.Array | None = None
  key_bias: jax.Array | None = None


def head_scores(projections: Projections, text: jax.Array, visual: jax.Array, query_mask: jax.Array) -> jax.Array:
  """Mean pre-RoPE attention logit of the query tokens to each visual token, for every head.

  c[h, v] = mean_n (q[n, h] . key[v, g(h)]) / sqrt(d), with g(h) = h // (H / G).

  Args:
    projections: the first layer's projections.
    text: [B, T, D] text embeddings after the first layer's input norm.
    visual: [B, V, D] visual embeddings after the same norm.
    query_mask: [B, T] bool, the query tokens.

  Returns:
    [B, H, V] float32; non-finite values are 0. A row without query tokens scores 0 everywhere.
  """
  to_float = lambda x: x.astype(jnp.float32)
  heads, head_dim = projections.query.shape[1:]
  groups = projections.key.shape[1]
  with jax.default_matmul_precision("highest"):
    weight = to_float(query_mask)
    weight /= jnp.maximum(weight.sum(-1, keepdims=True), 1.0)
    # Tokens outside the query take no part even where they are not finite.
    mean_text = jnp.einsum("BT,BTD->BD", weight, jnp.where(query_mask[..., None], to_float(text), 0.0))
    query = jnp.einsum("BD,DHd->BHd", mean_text, to_float(projections.query))
    if projections.query_bias is not None:
      query += to_float(projections.query_bias)
    query = rearrange(query, "B (G M) d -> B G M d", G=groups)
    folded = jnp.einsum("BGMd,DGd->BGMD", query, to_float(projections.key))
    logits = jnp.einsum("BGMD,BVD->BGMV", folded, to_float(visual))
    if projections.key_bias is not None:
      logits += jnp.einsum("BGMd,Gd->BGM", query, to_float(projections.key_bias))[..., None]
  logits = rearrange(logits, "B G M V -> B (G M) V", M=heads // groups) / jnp.sqrt(float(head_dim))
  has_query = query_mask.any(-1)[:, None, None]
  return jnp.where(jnp.isfinite(logits) & has_query, logits, 0.0)


def normalize(scores: jax.Array, visual_mask: jax.Array, normalization: str = "l2") -> jax.Array:
  """Puts the heads on one scale before they are weighed.

  Args:
    scores: [B, H, V] float32 of `head_scores`.
    visual_mask: [B, V] bool, True on real visual tokens; padding takes no part.
    normalization: `l2` (the authors' code: norm floored at 1e-12), `softmax`, `minmax` (range floored at the float32
      epsilon) or `none` (the paper).

  Returns:
    [B, H, V] float32, 0 on padding.

  Raises:
    ValueError: on an unknown normalization.
  """
  mask = visual_mask[:, None, :]
  scores = jnp.where(mask, scores, 0.0)
  if normalization == "l2":
    norm = jnp.sqrt(jnp.sum(scores * scores, axis=-1, keepdims=True))
    return scores / jnp.maximum(norm, 1e-12)
  if normalization == "softmax":
    return jnp.where(mask, jax.nn.softmax(scores, axis=-1, where=mask), 0.0)
  if normalization == "minmax":
    low = jnp.min(scores, axis=-1, keepdims=True, initial=jnp.inf, where=mask)
    high = jnp.max(scores, axis=-1, keepdims=True, initial=-jnp.inf, where=mask)
    return jnp.where(mask, (scores - low) / jnp.maximum(high - low, jnp.finfo(jnp.float32).eps), 0.0)
  if normalization == "none":
    return scores
  raise ValueError(f"normalization: got {normalization!r}, allowed are {', '.join(NORMALIZATIONS)}")


def fuse(scores: jax.Array, head_importance: jax.Array) -> jax.Array:
  """Fused score I[v] = sum_h w[h] * c[h, v] (equation 6).

  Args:
    scores: [B, H, V] float32.
    head_importance: [H] or [B, H] float32.

  Returns:
    [B, V] float32.
  """
  weights = jnp.broadcast_to(head_importance.astype(jnp.float32), scores.shape[:2])
  with jax.default_matmul_precision("highest"):
    return jnp.einsum("BH,BHV->BV", weights, scores)
