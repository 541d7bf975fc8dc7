"""A pruned model in the form that evaluation harnesses need: questions in, texts out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

from experiments.running import environment
from hawk_jax import importance
from hawk_jax.pruning import Pruning
from models import generate
from models import load_processor
from models import registry
from models import stages


class PrunedModel:
  """A checkpoint, and how its visual tokens are pruned."""

  def __init__(
    self,
    model: str,
    *,
    head_importance: str = "uniform",
    keep_ratio: float | None = None,
    selector: str = "hawk",
    normalization: str = "l2",
    max_new_tokens: int = 64,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    fps: float = 2.0,
    max_frames: int = 64,
    dtype: str | None = None,
  ):
    """Loads a checkpoint.

    Args:
      model: its directory or hub id.
      head_importance: preset:NAME, uniform, or a JSON file.
      keep_ratio: share of the visual tokens to keep; None: all.
      selector: the rule that picks tokens.
      normalization: how each head's scores are normalized.
      max_new_tokens: most tokens of an answer, unless the harness sets another limit.
      min_pixels: smaller pictures are scaled up to this many pixels; None: the checkpoint's own limit.
      max_pixels: larger pictures are scaled down to this many pixels; None: the checkpoint's own limit.
      fps: frames per second to take from videos.
      max_frames: most frames to take from a video.
      dtype: of parameters and computation; None: float32 on CPU, bfloat16 elsewhere.

    Raises:
      ValueError: an argument that is not allowed, by name, or a checkpoint that cannot be loaded.
    """
    self._pruning = Pruning(keep_ratio=keep_ratio, selector=selector, normalization=normalization)
    directory, self._model = registry.describe(model)
    text = self._model.config.text
    stages.check(self._pruning, self._model)
    self._head_importance = importance.load(head_importance, text.num_attention_heads)
    self._processor = load_processor(model)
    self._params = registry.load_params(directory, self._model, dtype or environment.default_dtype())
    self._pixels = dict(min_pixels=min_pixels, max_pixels=max_pixels)
    self._frames = dict(fps=fps, max_frames=max_frames)
    self._max_new_tokens = max_new_tokens

  def answer(self, questions: Sequence[Sequence[Mapping[str, Any]]], max_new_tokens: int | None = None) -> list[str]:
    """Answers a batch of questions, greedily.

    Args:
      questions: each a list of {"type": "text", "image" or "video", "value": ...} in the order in which they are shown; a
        picture is anything that a processor takes, a video is a path.
      max_new_tokens: most tokens of an answer; None: that of the model.
    """
    values = lambda parts, kind: [part["value"] for part in parts if part["type"] == kind]
    content = lambda part: {"type": "text", "text": part["value"]} if part["type"] == "text" else {"type": part["type"]}
    arrays = self._processor(
      images=[values(parts, "image") for parts in questions],
      videos=[[self._processor.read_video(path, **self._frames) for path in values(parts, "video")] for parts in questions],
      messages=[[{"role": "user", "content": list(map(content, parts))}] for parts in questions],
      **self._pixels,
    )
    out = generate(
      self._model,
      self._params,
      self._model.pack(**arrays),
      self._head_importance,
      max_new_tokens=max_new_tokens or self._max_new_tokens,
      eos_token_ids=self._processor.eos_token_ids,
      **dataclasses.asdict(self._pruning),
    )
    return self._processor.decode(out.tokens, out.lengths)
