"""The same checkpoint in transformers' torch model, as a baseline. Needs torch, which is not in requirements.txt.

The pruned prefill is given the positions to keep: it is transformers' own vision encoder, then its decoder over the tokens
kept. Selecting them costs the baseline nothing.

Axes: B batch, S prompt length, K tokens kept.
"""

from __future__ import annotations

from collections.abc import Mapping
import pathlib
from typing import Any

import numpy as np
import torch
import transformers

# Arrays of the language side; all others are arguments of the vision encoder.
_LANGUAGE = ("input_ids", "attention_mask")


class Baseline:
  """A torch model on prompts of equal length and with equal pictures; see `comparison.Baseline`."""

  def __init__(self, directory: pathlib.Path, dtype: str, weights: Mapping[str, Any]):
    """Builds the model.

    Args:
      directory: with its config.json.
      dtype: to compute in.
      weights: arrays by their names in a checkpoint file, on any device that DLPack knows.
    """
    self.device = "cuda" if torch.cuda.is_available() else "cpu"
    tensors = {name: torch.from_dlpack(array) for name, array in weights.items()}
    config = transformers.AutoConfig.from_pretrained(directory)
    self.model = (
      transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)]
      .from_pretrained(
        None,
        config=config,
        state_dict=tensors,
        dtype=getattr(torch, dtype),
        attn_implementation="sdpa",
      )
      .to(self.device)
      .eval()
    )
    if hasattr(getattr(self.model.model, "visual", None), "deepstack_merger_list"):
      raise ValueError("baseline: transformers' pruned prefill is not written for models with DeepStack")
    self.image_token_id = self.model.config.image_token_id
    # Only models with several position axes have this function.
    self.find_positions = getattr(self.model.model, "get_rope_index", None)
    # CUDA graphs: the whole step is compiled and replayed. On other devices only the static cache remains.
    self.compiled = self.model.model.language_model
    if self.device == "cuda":
      self.compiled = torch.compile(self.compiled, mode="reduce-overhead", fullgraph=True)

  def wait(self) -> None:
    """Returns when the device has done all its work."""
    if self.device == "cuda":
      torch.cuda.synchronize()

  def tensors(self, arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """A processor's arrays, on the device."""
    out = {name: torch.from_numpy(np.asarray(value)).to(self.device) for name, value in arrays.items()}
    return {**out, "pixel_values": out["pixel_values"].to(self.model.dtype)}

  @torch.no_grad()
  def vision(self, tensors) -> torch.Tensor:
    """[visual tokens, D] of all rows, one after the other."""
    pictures = {name: tensor for name, tensor in tensors.items() if name not in _LANGUAGE}
    return torch.cat(list(self.model.model.get_image_features(**pictures).pooler_output))

  @torch.no_grad()
  def prefill(self, tensors, kept: np.ndarray, room: int | None = None):
    """Vision, and what is kept of the prompts.

    Args:
      tensors: of `tensors`.
      kept: [B, K] prompt positions to keep, ascending.
      room: slots of a static cache; None: a cache that grows.

    Returns:
      [B, vocab] logits of the last token, the cache, and [B] next rotary positions.
    """
    ids = tensors["input_ids"]
    visual = ids == self.image_token_id
    embeddings = self.model.get_input_embeddings()(ids).clone()
    embeddings[visual] = self.vision(tensors).reshape(-1, embeddings.shape[-1]).to(embeddings.dtype)
    if self.find_positions:
      positions, _ = self.find_positions(ids, visual.int(), tensors["image_grid_thw"])
    else:
      positions = torch.arange(ids.shape[1], device=self.device).expand_as(ids)
    following = positions.reshape(-1, *ids.shape).amax((0, 2)) + 1
    kept = torch.from_numpy(np.asarray(kept)).to(self.device)
    rows = torch.arange(len(ids), device=self.device)[:, None]
    cache = None if room is None else transformers.StaticCache(self.model.config.get_text_config(), max_cache_len=room)
    out = self.model.model.language_model(
      inputs_embeds=embeddings[rows, kept], position_ids=positions[..., rows, kept], use_cache=True, past_key_values=cache
    )
    return self.model.lm_head(out.last_hidden_state[:, -1]), out.past_key_values, following

  @torch.no_grad()
  def decode(self, logits, cache, following, steps: int) -> list[list[int]]:
    """Greedy tokens of each row: the one that `logits` choose, and `steps` more from the cache."""
    static = isinstance(cache, transformers.StaticCache)
    step_of = self.compiled if static else self.model.model.language_model
    tokens = [logits.argmax(-1)]
    for step in range(steps):
      position = (following + step)[:, None]
      out = step_of(
        inputs_embeds=self.model.get_input_embeddings()(tokens[-1][:, None]),
        past_key_values=cache,
        use_cache=True,
        position_ids=position.expand(3, *position.shape) if self.find_positions else position,
      )
      tokens.append(self.model.lm_head(out.last_hidden_state[:, -1]).argmax(-1))
    return torch.stack(tokens, 1).tolist()

  def answer(self, tensors, kept: np.ndarray, steps: int, room: int | None = None) -> tuple[np.ndarray, list[list[int]]]:
    """[B, vocab] float32 logits of the first token, and `steps` + 1 greedy tokens of each row."""
    state = self.prefill(tensors, kept, room)
    return state[0].float().cpu().numpy(), self.decode(*state, steps)
