"""Work that the shared decoder cannot avoid: floating-point operations (a multiply-add counts as two) and bytes.

Only matrix products over real tokens count, since padding is no work; causal attention counts as half of its square. A port
counts its vision encoder itself, in `vision_flops`.
"""

from __future__ import annotations

from models.decoder import DecoderConfig


def language_prefill(text: DecoderConfig, tokens: int) -> float:
  """FLOPs of one prompt through the decoder, and of the head on its last token.

  The last layer needs only the keys and values of the other tokens.

  Args:
    text: the decoder.
    tokens: of the prompt, after pruning.
  """
  width = text.num_attention_heads * text.head_dim
  keys_values = 2 * text.hidden_size * text.num_key_value_heads * text.head_dim
  whole = (text.num_hidden_layers - 1) * (2 * tokens * _layer_weights(text) + 2 * tokens**2 * width)
  last = 2 * (tokens - 1) * keys_values + 2 * _layer_weights(text) + 4 * tokens * width
  return whole + last + 2 * text.hidden_size * text.vocab_size


def scoring(text: DecoderConfig, visual_tokens: int) -> float:
  """FLOPs of HAWK's scores for one prompt: a query per head, folded into the key projection.

  Where queries and keys are normalized, every key is computed instead; a single query token is counted.
  """
  width = text.num_attention_heads * text.head_dim
  query = 2 * text.hidden_size * width
  if text.qk_norm:
    keys = 2 * visual_tokens * text.hidden_size * text.num_key_value_heads * text.head_dim
    return query + keys + 2 * visual_tokens * width
  return query + 2 * text.hidden_size * width + 2 * visual_tokens * text.hidden_size * text.num_attention_heads


def decode_bytes(text: DecoderConfig, cached: int, batch: int, itemsize: int) -> float:
  """Bytes that one decoding step reads: every kernel once, those of all experts too, and the cache of every row.

  Args:
    text: the decoder.
    cached: tokens in the cache of each row.
    batch: rows.
    itemsize: bytes per element.
  """
  experts = 0 if text.experts is None else text.experts.num_experts
  weights = text.num_hidden_layers * _layer_weights(text, experts) + text.hidden_size * text.vocab_size
  return itemsize * (weights + batch * kv_cache_elements(text, cached))


def kv_cache_elements(text: DecoderConfig, tokens: int) -> int:
  """Elements of one row's cache: 2 * layers * tokens * key/value heads * head dim."""
  return 2 * text.num_hidden_layers * tokens * text.num_key_value_heads * text.head_dim


def _layer_weights(text: DecoderConfig, experts: int | None = None) -> int:
  """Elements of the kernels of one layer; of those of its experts, what so many hold, by default those of one token."""
  width = (2 * text.num_attention_heads + 2 * text.num_key_value_heads) * text.head_dim
  if text.experts is None:
    return text.hidden_size * (width + 3 * text.intermediate_size)
  sparse = text.experts
  experts = sparse.num_experts_per_tok if experts is None else experts
  return text.hidden_size * (width + sparse.num_experts + 3 * experts * sparse.moe_intermediate_size)
