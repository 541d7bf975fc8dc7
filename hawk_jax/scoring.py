"""Online scoring: text-guided attention of the first layer without RoPE, weighted by head importance.

HAWK (arXiv 2604.07812), Equations 4 to 6; docs/method.md, "Scores". Both the mean over query tokens and the projections are
linear, so a single mean query per head gives exactly the mean of all text-to-visual logits. Multiplied into the key
projection, it becomes one D-vector per head, and scoring costs V * D * H multiply-adds. Models that normalize queries and
keys (Qwen3) are linear only after their norms: there the normalized queries are averaged, and every key is computed.

Axes: B batch, T text slots, V visual slots, H query heads, G key/value heads, M = H / G, d head dim, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable
import itertools

from einops import rearrange
from flax import struct
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from hawk_jax import checks
from hawk_jax.prompt import Prompt

NORMALIZATIONS = ("l2", "softmax", "minmax", "none")
_LARGEST = 1e15
# Weights of heads that follow from the question itself, see `question_weights`.
QUESTION_WEIGHTS = ("mass", "entropy")


@struct.dataclass
class Projections:
  """The first decoder layer's query and key projections, and the norm before them.

  Attributes:
    query: [D, H, d] kernel.
    key: [D, G, d] kernel.
    query_bias: [H, d] or None.
    key_bias: [G, d] or None.
    input_norm: [D] scale of the RMSNorm that the layer applies first; None: the embeddings are normalized already.
    query_norm: [d] scale of an RMSNorm of every head's queries, or None.
    key_norm: [d] scale of an RMSNorm of every head's keys; given exactly if query_norm is.
    epsilon: of the norms.
    rotate: function ([B, T, N, d], [B, T, A] positions) that turns queries or keys by their rotary positions, or None.
  """

  query: jax.Array
  key: jax.Array
  query_bias: jax.Array | None = None
  key_bias: jax.Array | None = None
  input_norm: jax.Array | None = None
  query_norm: jax.Array | None = None
  key_norm: jax.Array | None = None
  epsilon: float = struct.field(pytree_node=False, default=1e-6)
  rotate: Callable[[jax.Array, jax.Array], jax.Array] | None = struct.field(pytree_node=False, default=None)


def head_scores(
  projections: Projections,
  text: jax.Array,
  visual: jax.Array,
  query_mask: jax.Array,
  positions: tuple[jax.Array, jax.Array] | None = None,
) -> jax.Array:
  """Mean pre-RoPE attention logit of the query tokens to each visual token, for every head (Equation 4).

  c[h, v] = mean_n (q[n, h] . key[v, g(h)]) / sqrt(d), with g(h) = h // (H / G).

  Args:
    projections: the first layer's projections.
    text: [B, T, D] text embeddings.
    visual: [B, V, D] visual embeddings.
    query_mask: [B, T] bool, True on the query tokens.
    positions: [B, T, A] and [B, V, A] rotary positions of text and visual tokens, by which queries and keys are then turned;
      None, as in the paper: they are not.

  Returns:
    [B, H, V] float32; values that are not finite become 0. A row without query tokens scores 0 everywhere.
  """
  heads, head_dim = projections.query.shape[1:]
  if projections.input_norm is not None:
    text, visual = (_rms_norm(_float(x), projections.input_norm, projections.epsilon) for x in (text, visual))
  # Tokens outside the query have no influence even where they are not finite.
  text = jnp.where(query_mask[..., None], _float(text), 0.0)
  weight = _float(query_mask)
  weight /= jnp.maximum(weight.sum(-1, keepdims=True), 1.0)
  with jax.default_matmul_precision("highest"):
    if projections.query_norm is None and positions is None:
      logits = _folded_logits(projections, text, weight, _float(visual))
    else:
      logits = _explicit_logits(projections, text, weight, _float(visual), positions)
  logits = rearrange(logits, "B G M V -> B (G M) V", M=heads // projections.key.shape[1]) / jnp.sqrt(float(head_dim))
  has_query = query_mask.any(-1)[:, None, None]
  return jnp.where(jnp.isfinite(logits) & has_query, logits, 0.0)


def key_norms(projections: Projections, visual: jax.Array) -> jax.Array:
  """L1 norm of each visual token's keys without RoPE, over all heads, [B, V] float32."""
  visual = _float(visual)
  if projections.input_norm is not None:
    visual = _rms_norm(visual, projections.input_norm, projections.epsilon)
  with jax.default_matmul_precision("highest"):
    return jnp.abs(_project(projections, visual, "key")).sum(axis=(2, 3))


def separator(prompt: Prompt) -> jax.Array:
  """SepPrune's query (arXiv 2607.25818): the text token just after the last visual token, as [B, T] bool.

  It is the vision-end token where a model has one. Its embedding is the same in every prompt, so the scores do not depend on
  the question. A prompt that ends with a picture has no query, and all of its scores are 0.
  """
  return prompt.text_order == prompt.visual_order.max(axis=1, keepdims=True) + 1


def mean_query(text: jax.Array, query_mask: jax.Array) -> jax.Array:
  """[B, D] float32, the mean embedding of the query tokens; 0 where there is none."""
  total = jnp.where(query_mask[..., None], _float(text), 0.0).sum(axis=1)
  return total / jnp.maximum(query_mask.sum(-1, keepdims=True), 1)


def question_weights(
  visual_scores: jax.Array, text_scores: jax.Array, visual_mask: jax.Array, text_mask: jax.Array, kind: str
) -> jax.Array:
  """Weights of the heads for each question, from their scores alone: without calibration.

  `mass` is the share of attention that a head's mean query puts on visual tokens rather than on text; SparseVLM+ selects
  heads by it. `entropy` is the inverse entropy of a head's softmaxed scores over the visual tokens: a head that looks at few
  tokens weighs more.

  Args:
    visual_scores: [B, H, V] of `head_scores`.
    text_scores: [B, H, T] of `head_scores` with the text tokens in place of the visual ones.
    visual_mask: [B, V] bool, the visual tokens that count.
    text_mask: [B, T] bool, the text tokens that count.
    kind: `mass` or `entropy`.

  Returns:
    [B, H] float32, with a sum of 1.

  Raises:
    ValueError: an unknown kind.
  """
  checks.choice("head_weights", kind, QUESTION_WEIGHTS)
  visual_mask, text_mask = visual_mask[:, None], text_mask[:, None]
  if kind == "mass":
    total = lambda scores, mask: jax.nn.logsumexp(jnp.where(mask, scores, -1e30), axis=-1)
    weights = jax.nn.sigmoid(total(visual_scores, visual_mask) - total(text_scores, text_mask))
  else:
    shares = jnp.where(visual_mask, jax.nn.softmax(visual_scores, axis=-1, where=visual_mask), 0.0)
    weights = 1 / jnp.maximum(jax.scipy.special.entr(shares).sum(axis=-1), 1e-6)
  return weights / jnp.maximum(weights.sum(axis=-1, keepdims=True), 1e-30)


def normalize(scores: jax.Array, visual_mask: jax.Array, normalization: str = "l2") -> jax.Array:
  """Brings the heads to one scale before they are weighted.

  Args:
    scores: [B, H, V] float32 of `head_scores`.
    visual_mask: [B, V] bool, True on real visual tokens; padding has no influence.
    normalization: `l2` (the authors' code: norm floored at 1e-12), `softmax`, `minmax` (range floored at the float32
      epsilon) or `none` (the paper).

  Returns:
    [B, H, V] float32, 0 on padding.

  Raises:
    ValueError: an unknown normalization.
  """
  checks.choice("normalization", normalization, NORMALIZATIONS)
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
  return scores


def fuse(scores: jax.Array, head_importance: ArrayLike | None = None) -> jax.Array:
  """Fused score I[v] = sum_h w[h] * c[h, v] (Equation 6).

  Args:
    scores: [B, H, V] float32, normalized.
    head_importance: [H] or [B, H] float32; None: uniform head weights, 1 / H each.

  Returns:
    [B, V] float32.

  Raises:
    ValueError: importance of another shape.
  """
  batch, heads = scores.shape[:2]
  if head_importance is None:
    head_importance = jnp.full([heads], 1.0 / heads)
  shape = np.shape(head_importance)
  if shape not in itertools.product((1, batch), (1, heads)) and shape not in ((1,), (heads,)):
    raise ValueError(f"head_importance: got shape {shape}, must be [{heads}] or [{batch}, {heads}], one weight per head")
  weights = jnp.broadcast_to(jnp.asarray(head_importance, jnp.float32), scores.shape[:2])
  with jax.default_matmul_precision("highest"):
    return jnp.einsum("BH,BHV->BV", weights, scores)


def bounded(values: jax.Array, mask: jax.Array) -> jax.Array:
  """Numbers whose squares and differences are finite: NaN becomes 0, and rows with larger numbers than 1e15 are scaled.

  Args:
    values: [B, V, ...] of any float dtype.
    mask: [B, V] bool, True where values count.

  Returns:
    [B, V, ...] float32, 0 where values do not count.
  """
  mask = mask.reshape(mask.shape + (1,) * (values.ndim - 2))
  values = jnp.where(mask, jnp.nan_to_num(_float(values)), 0.0)
  largest = jnp.max(jnp.abs(values), axis=range(1, values.ndim), keepdims=True, initial=_LARGEST)
  return values * (_LARGEST / largest)


def _float(x):
  return x.astype(jnp.float32)


def _rms_norm(x, scale, epsilon):
  return x * (jax.lax.rsqrt(jnp.mean(jax.lax.square(x), axis=-1, keepdims=True) + epsilon) * _float(scale))


def _folded_logits(projections, text, weight, visual):
  """[B, G, M, V]: the mean query is multiplied into the key projection, so that no key is computed."""
  query = jnp.einsum("BD,DHd->BHd", jnp.einsum("BT,BTD->BD", weight, text), _float(projections.query))
  if projections.query_bias is not None:
    query += _float(projections.query_bias)
  query = rearrange(query, "B (G M) d -> B G M d", G=projections.key.shape[1])
  folded = jnp.einsum("BGMd,DGd->BGMD", query, _float(projections.key))
  logits = jnp.einsum("BGMD,BVD->BGMV", folded, visual)
  if projections.key_bias is not None:
    logits += jnp.einsum("BGMd,Gd->BGM", query, _float(projections.key_bias))[..., None]
  return logits


def _explicit_logits(projections, text, weight, visual, positions):
  """[B, G, M, V]: the mean of the normalized or turned queries meets every such key."""
  queries = _project(projections, text, "query")
  keys = _project(projections, visual, "key")
  if positions is not None:
    assert projections.rotate is not None
    queries, keys = projections.rotate(queries, positions[0]), projections.rotate(keys, positions[1])
  query = rearrange(jnp.einsum("BT,BTHd->BHd", weight, queries), "B (G M) d -> B G M d", G=keys.shape[2])
  return jnp.einsum("BGMd,BVGd->BGMV", query, keys)


def _project(projections, x, name):
  """[B, T, N, d] queries or keys of tokens [B, T, D] that went through the input norm."""
  x = jnp.einsum("BTD,DNd->BTNd", x, _float(getattr(projections, name)))
  bias, norm = getattr(projections, f"{name}_bias"), getattr(projections, f"{name}_norm")
  x = x if bias is None else x + _float(bias)
  return x if norm is None else _rms_norm(x, norm, projections.epsilon)
