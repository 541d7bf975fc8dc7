"""The same checkpoint in transformers' torch model, to measure beside ours. Needs torch, which is not in requirements.

Pruned prefill gets the positions to keep for nothing: transformers' own vision, then its decoder over the tokens kept.
"""

from __future__ import annotations

import pathlib

import numpy as np
import torch
import transformers


class Baseline:
  """A torch model, batch size 1."""

  def __init__(self, directory: pathlib.Path, dtype: str):
    self.device = "cuda" if torch.cuda.is_available() else "cpu"
    self.model = transformers.AutoModelForImageTextToText.from_pretrained(
        directory, dtype=getattr(torch, dtype), attn_implementation="sdpa").to(self.device).eval()
    self.place = self.model.config.image_token_id

  def wait(self) -> None:
    """Until the device has done what it was told."""
    if self.device == "cuda":
      torch.cuda.synchronize()

  def tensors(self, arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """A processor's arrays on the device."""
    out = {name: torch.from_numpy(np.asarray(value)).to(self.device) for name, value in arrays.items()}
    out["pixel_values"] = out["pixel_values"].to(self.model.dtype)
    if "image_grid_thw" in out:
      out["mm_token_type_ids"] = (out["input_ids"] == self.place).int()
    return out

  @torch.no_grad()
  def vision(self, tensors) -> torch.Tensor:
    """[V, D] visual tokens."""
    sizes = [tensors[name] for name in ("image_grid_thw", "image_sizes") if name in tensors]
    return torch.cat(list(self.model.model.get_image_features(tensors["pixel_values"], *sizes).pooler_output))

  @torch.no_grad()
  def prefill(self, tensors, kept: np.ndarray | None = None):
    """Vision, and the prompt or what is kept of it.

    Args:
      tensors: of `tensors`.
      kept: prompt positions to keep, ascending; None: all.

    Returns:
      [vocab] logits of the last token, the cache, and the next rotary position.
    """
    ids = tensors["input_ids"]
    embeddings = self.model.get_input_embeddings()(ids).clone()
    embeddings[ids == self.place] = self.vision(tensors).to(embeddings.dtype)
    if "mm_token_type_ids" in tensors:
      positions, _ = self.model.model.get_rope_index(ids, tensors["mm_token_type_ids"], tensors["image_grid_thw"])
    else:
      positions = torch.arange(ids.shape[1], device=self.device)[None]
    following = int(positions.max()) + 1
    if kept is not None:
      kept = torch.from_numpy(np.asarray(kept)).to(self.device)
      embeddings, positions = embeddings[:, kept], positions[..., kept]
    out = self.model.model.language_model(inputs_embeds=embeddings, position_ids=positions, use_cache=True)
    return self.model.lm_head(out.last_hidden_state[:, -1])[0], out.past_key_values, following

  @torch.no_grad()
  def decode(self, logits, cache, following: int, steps: int) -> list[int]:
    """Greedy: the token that `logits` choose, and `steps` more from the cache, which grows."""
    tokens = [int(logits.argmax())]
    for step in range(steps):
      token = torch.tensor([[tokens[-1]]], device=self.device)
      position = torch.full_like(token, following + step)
      out = self.model.model.language_model(
          inputs_embeds=self.model.get_input_embeddings()(token), past_key_values=cache, use_cache=True,
          position_ids=position.expand(3, 1, 1) if "vision_start_token_id" in self.model.config.to_dict() else position)
      tokens.append(int(self.model.lm_head(out.last_hidden_state[:, -1])[0].argmax()))
    return tokens
