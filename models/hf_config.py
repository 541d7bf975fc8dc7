"""What several ports read in the same way from a checkpoint's config.json."""

from __future__ import annotations

import dataclasses
from typing import Any

from models.decoder import DecoderConfig
from models.experts import ExpertsConfig


def require(name: str, value, *supported) -> None:
  """Refuses a value that the port does not implement.

  Raises:
    ValueError: `value` is not among `supported`.
  """
  if value not in supported:
    raise ValueError(f"config: {name} is {value!r}, supported is {', '.join(map(repr, supported))}")


def matching(kind: type, source) -> dict[str, Any]:
  """Values of a transformers config for the fields of a dataclass, lists as tuples; fields that it lacks are left out."""
  values = {field.name: getattr(source, field.name) for field in dataclasses.fields(kind) if hasattr(source, field.name)}
  return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def require_squares(vision) -> None:
  """Refuses a tower whose tiles or patches are not square.

  Args:
    vision: transformers' configuration of the tower.

  Raises:
    ValueError: image_size or patch_size is not one number.
  """
  for name in ("image_size", "patch_size"):
    if not isinstance(getattr(vision, name), int):
      raise ValueError(f"config: vision_config.{name} is {getattr(vision, name)!r}, must be one number: tiles are square")


def decoder(
  text,
  *,
  attention_bias: bool,
  tie_word_embeddings: bool,
  mrope_section: tuple[int, ...] = (),
  mrope_interleaved: bool = False,
  qk_norm: bool = False,
  experts: ExpertsConfig | None = None,
) -> DecoderConfig:
  """The decoder of a transformers text config.

  Dynamic rope equals the default up to max_position_embeddings, beyond which no prompt or answer gets here.

  Args:
    text: transformers' configuration of a Qwen2-, Qwen3-, LLaMA- or Mistral-style decoder.
    attention_bias: whether query, key and value projections have one; the output projection has none.
    tie_word_embeddings: whether the head is the embedding table.
    mrope_section: number of rotary frequencies of each position axis; none: one axis.
    mrope_interleaved: see `models.rope.text_frequencies`.
    qk_norm: whether each head's queries and keys are normalized.
    experts: of `experts`, in models that have some.

  Raises:
    ValueError: an activation, a rope or a sliding window that the shared decoder does not implement.
  """
  require("text_config.hidden_act", text.hidden_act, "silu")
  rope = text.rope_parameters
  require("text_config.rope_parameters.rope_type", rope.get("rope_type", "default"), "default", "dynamic")
  require("text_config.rope_parameters.partial_rotary_factor", rope.get("partial_rotary_factor", 1.0), 1.0)
  window = getattr(text, "sliding_window", None)
  slides = "sliding_attention" in (getattr(text, "layer_types", None) or ["sliding_attention"])
  if window is not None and slides and window < text.max_position_embeddings:
    raise ValueError(
      f"config: text_config.sliding_window is {window}, must be null or at least max_position_embeddings "
      f"({text.max_position_embeddings}): sliding window attention is not supported"
    )
  return DecoderConfig(
    **{
      **matching(DecoderConfig, text),
      "head_dim": getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
      "rope_theta": float(rope["rope_theta"]),
      "mrope_section": mrope_section,
      "mrope_interleaved": mrope_interleaved,
      "qk_norm": qk_norm,
      "attention_bias": attention_bias,
      "tie_word_embeddings": tie_word_embeddings,
      "experts": experts,
    }
  )


def experts(text) -> ExpertsConfig:
  """The experts of a transformers text config.

  Raises:
    ValueError: layers without experts, or more experts per token than there are.
  """
  require("text_config.decoder_sparse_step", getattr(text, "decoder_sparse_step", 1), 1)
  require("text_config.mlp_only_layers", list(getattr(text, "mlp_only_layers", None) or []), [])
  require("text_config.norm_topk_prob", getattr(text, "norm_topk_prob", True), True)
  return ExpertsConfig(**matching(ExpertsConfig, text))
