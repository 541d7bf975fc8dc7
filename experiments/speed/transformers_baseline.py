"""The same checkpoint in transformers' torch model, as a baseline. Needs torch, which is not in requirements.txt.

The pruned prefill is given the positions to keep: it is transformers' own vision encoder, then its decoder over the tokens
kept. Selecting them costs the baseline nothing.
"""

from __future__ import annotations

import pathlib

import numpy as np
import torch
import transformers

# Arrays of the language side; all others are arguments of the vision encoder.
_LANGUAGE = ("input_ids", "attention_mask")


class Baseline:
  """A torch model at batch size 1; see `comparison.Baseline`."""

  def __init__(self, directory: pathlib.Path, dtype: str):
    self.device = "cuda" if torch.cuda.is_available() else "cpu"
    self.model = (
      transformers.AutoModelForImageTextToText.from_pretrained(
        directory, dtype=getattr(torch, dtype), attn_implementation="sdpa"
      )
      .to(self.device)
      .eval()
    )
    if hasattr(getattr(self.model.model, "visual", None), "deepstack_merger_list"):
      raise ValueError("baseline: transformers' pruned prefill is not written for models with DeepStack")
    self.image_token_id = self.model.config.image_token_id
    # Only models with several position axes have this function.
    self.find_positions = getattr(self.model.model, "get_rope_index", None)

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
    """[V, D] visual tokens."""
    pictures = {name: tensor for name, tensor in tensors.items() if name not in _LANGUAGE}
    return torch.cat(list(self.model.model.get_image_features(**pictures).pooler_output))

  @torch.no_grad()
  def prefill(self, tensors, kept: np.ndarray):
    """Vision, and what is kept of the prompt.

    Args:
      tensors: of `tensors`.
      kept: prompt positions to keep, ascending.

    Returns:
      [vocab] logits of the last token, the cache, and the next rotary position.
    """
    ids = tensors["input_ids"]
    visual = ids == self.image_token_id
    embeddings = self.model.get_input_embeddings()(ids).clone()
    embeddings[visual] = self.vision(tensors).to(embeddings.dtype)
    if self.find_positions:
      positions, _ = self.find_positions(ids, visual.int(), tensors["image_grid_thw"])
    else:
      positions = torch.arange(ids.shape[1], device=self.device)[None]
    following = int(positions.max()) + 1
    kept = torch.from_numpy(np.asarray(kept)).to(self.device)
    out = self.model.model.language_model(
      inputs_embeds=embeddings[:, kept], position_ids=positions[..., kept], use_cache=True
    )
    return self.model.lm_head(out.last_hidden_state[:, -1])[0], out.past_key_values, following

  @torch.no_grad()
  def decode(self, logits, cache, following: int, steps: int) -> list[int]:
    """Greedy tokens: the one that `logits` choose, and `steps` more from the cache, which grows."""
    tokens = [int(logits.argmax())]
    for step in range(steps):
      token = torch.tensor([[tokens[-1]]], device=self.device)
      position = torch.full_like(token, following + step)
      out = self.model.model.language_model(
        inputs_embeds=self.model.get_input_embeddings()(token),
        past_key_values=cache,
        use_cache=True,
        position_ids=position.expand(3, 1, 1) if self.find_positions else position,
      )
      tokens.append(int(self.model.lm_head(out.last_hidden_state[:, -1])[0].argmax()))
    return tokens

  def answer(self, tensors, kept: np.ndarray, steps: int) -> tuple[np.ndarray, list[int]]:
    """[vocab] float32 logits of the first token, and `steps` + 1 greedy tokens."""
    state = self.prefill(tensors, kept)
    return state[0].float().cpu().numpy(), self.decode(*state, steps)
