"""What every port is: a vision encoder, the shared decoder, and HAWK's pruning between them.

A port subclasses `VisionLanguageModel`, sets up `self.language_model` (a `Decoder`), and offers `encode` (its vision
arrays to features), `pack` (the arrays of a Hugging Face processor to fixed shapes) and `example` (a smallest batch).

Axes: B batch, T text slots, V visual slots, K kept slots, L = T + K, F feature rows, H heads, D hidden size.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar

from einops import rearrange
from flax import linen as nn
from flax import struct
import jax
import jax.numpy as jnp

from hawk_jax import budgets
from hawk_jax import prompt as prompt_lib
from hawk_jax import scoring
from hawk_jax import selection
from hawk_jax import selectors
from models import sharding
from models.decoder import Cache
from models.decoder import Intervention
from models.decoder import NOTHING
from models.matmul import dot_general


@dataclasses.dataclass(frozen=True)
class View:
  """A grid of visual tokens that covers a picture.

  Attributes:
    picture: number of the picture.
    rows: of tokens.
    columns: of tokens.
    newlines: whether each row ends in one more token, which shows nothing.
  """

  picture: int
  rows: int
  columns: int
  newlines: bool = False

  @property
  def count(self) -> int:
    """Visual tokens of the view."""
    return self.rows * (self.columns + self.newlines)


@struct.dataclass
class Inputs:
  """A packed batch: fixed shapes, NumPy on the host.

  Attributes:
    prompt: the language side.
    vision: the port's own arrays, or None where no prompt has a picture.
  """

  prompt: prompt_lib.Prompt
  vision: Any


@struct.dataclass
class Prefill:
  """A compacted prompt that went through the decoder.

  Attributes:
    last: [B, D] normed hidden state of each row's last token; nothing else is read of the others than keys and values.
    order: [B, L] int32, the unpruned prompt's index of every token kept, ascending, -1 on padding.
    lengths: [B] int32, real tokens of each row.
    keys_values: keys and values of every layer.
  """

  last: jax.Array
  order: jax.Array
  lengths: jax.Array
  keys_values: Any


@struct.dataclass
class Output:
  """Logits of a whole prompt.

  Attributes:
    logits: [B, L, vocab] float32, of every token kept, in prompt order.
    order: [B, L] int32, as in `Prefill`.
  """

  logits: jax.Array
  order: jax.Array


class VisionLanguageModel(nn.Module):
  """Base of the ports. The compute dtype is the parameters'.

  Attributes:
    config: the port's configuration.
    mesh: devices that share the work, see `models.sharding`; None: one device.
  """

  config: Any
  mesh: jax.sharding.Mesh | None = None
  names: ClassVar[Any]  # models.checkpoint.Names of the port

  def __call__(self, inputs: Inputs, head_importance: jax.Array | None = None, *, keep_count: int | None = None,
               counts: jax.Array | None = None, normalization: str = "l2") -> Output:
    """Logits of prompts, pruned to `keep_count` visual tokens if it is given.

    Args:
      inputs: a batch of `pack`.
      head_importance: [H] or [B, H] float32; None weighs all heads alike.
      keep_count: static K, the most visual tokens a row keeps; None keeps all.
      counts: [B] int32, tokens each row really keeps, at most K; None: K, or all a row has.
      normalization: of the scores, see `hawk_jax.scoring.normalize`.
    """
    features = None if inputs.vision is None else self.encode(inputs.vision)
    sequence = self.prune(inputs.prompt, features, head_importance, keep_count=keep_count, counts=counts,
                          normalization=normalization)
    hidden, _ = self.language_model.prefill(sequence.embeddings, sequence.positions)
    return Output(logits=self.logits(hidden), order=sequence.order)

  def encode(self, vision) -> jax.Array:
    """The port's vision arrays to [F, D] features, in the rows that `Prompt.visual_slots` names."""
    raise NotImplementedError

  def pack(self, **batch) -> Inputs:
    """The arrays of a Hugging Face processor to fixed shapes, on the host."""
    raise NotImplementedError

  def example(self) -> Inputs:
    """The smallest batch with a picture, for shape inference."""
    raise NotImplementedError

  def views(self, **batch) -> list[View]:
    """Where the visual tokens of the pictures in a processor's arrays lie, in prompt order, for drawing."""
    raise NotImplementedError

  def stored_shapes(self) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors that checkpoints store with more axes than the parameters have, by dotted path."""
    return {}

  @nn.nowrap
  def leaves_out(self, tensor: str) -> bool:
    """Whether checkpoints may hold a tensor, by its dotted path, that is no parameter."""
    return tensor == "lm_head.weight" and self.config.text.tie_word_embeddings

  def scores(self, prompt: prompt_lib.Prompt, features: jax.Array) -> jax.Array:
    """Raw per-head score of every visual token, [B, H, V] float32 (METHOD section 3)."""
    return self._scores(prompt, self._embed(prompt.text_tokens), self._gather(prompt, features))

  def prefill(self, prompt: prompt_lib.Prompt, features: jax.Array | None, head_importance: jax.Array | None = None, *,
              selector: str = "hawk", prune_layer: int = 2, **pruning) -> Prefill:
    """Scores, prunes, and runs the decoder over what is left: `run` after `prune`.

    Args:
      prompt: as in `prune`.
      features: as in `prune`.
      head_importance: as in `prune`.
      selector: a name of `hawk_jax.selectors.SELECTORS`; `fastv` prunes inside the decoder.
      prune_layer: static, layers that `fastv` runs on all tokens.
      **pruning: as in `prune`.
    """
    if selector not in selectors.IN_DECODER or features is None or pruning.get("keep_count") is None:
      return self.run(self.prune(prompt, features, head_importance, selector=selector, **pruning))
    return self._prefill_fastv(prompt, features, prune_layer, pruning["keep_count"], pruning.get("counts"))

  def prune(self, prompt: prompt_lib.Prompt, features: jax.Array | None, head_importance: jax.Array | None = None, *,
            keep_count: int | None = None, counts: jax.Array | None = None, normalization: str = "l2",
            selector: str = "hawk", seeds: jax.Array | None = None, keep_mass: jax.Array | None = None,
            scores: jax.Array | None = None) -> prompt_lib.Sequence:
    """Scores the visual tokens and drops all but the best.

    Args:
      prompt: the language side of a batch.
      features: [F, D] of `encode`, or None where no prompt has a picture.
      head_importance: as in `__call__`.
      keep_count: as in `__call__`.
      counts: as in `__call__`.
      normalization: as in `__call__`.
      selector: a name of `hawk_jax.selectors.SELECTORS`.
      seeds: [B] uint32 for selectors that draw; None: 0.
      keep_mass: [] float32, each row keeps only as many of its tokens as hold this share of the softmaxed score.
      scores: [B, V] float32 instead of HAWK's fused scores; selectors of `hawk_jax.selectors.WITH_SCORES` need them.
    """
    selectors.check_scores(selector, scores)
    text = self._embed(prompt.text_tokens)
    if features is None:
      return prompt_lib.compact(prompt, text, text[:, :0], prompt.visual_order)
    visual = self._gather(prompt, features)
    if keep_count is None:
      kept = jnp.where(prompt.visual_mask, jnp.arange(visual.shape[1], dtype=jnp.int32), -1)
    else:
      batch, slots = prompt.visual_order.shape
      keep_count = min(keep_count, slots)
      counts = jnp.full([batch], keep_count) if counts is None else counts
      seeds = jnp.zeros([batch], jnp.uint32) if seeds is None else seeds
      if scores is None:
        raw = self._scores(prompt, text, visual)
        if head_importance is None:
          head_importance = jnp.full([raw.shape[1]], 1.0 / raw.shape[1])
        scores = scoring.fuse(scoring.normalize(raw, prompt.visual_mask, normalization), head_importance)
      if keep_mass is not None:
        counts = jnp.minimum(counts, budgets.mass_counts(scores, prompt.visual_mask, keep_mass))
      places = dict(positions=prompt.visual_positions) if selector in selectors.WITH_POSITIONS else {}
      select = selectors.SELECTORS[selector]
      kept = select(visual, scores, prompt.visual_mask, counts, seeds, keep_count=keep_count, **places)
    return prompt_lib.compact(prompt, text, visual, kept)

  def run(self, sequence: prompt_lib.Sequence, intervention: Intervention = NOTHING) -> Prefill:
    """The decoder over a compacted prompt.

    Args:
      sequence: of `prune`.
      intervention: over the sequence's L tokens as keys.
    """
    last, keys_values = self.language_model.prefill(sequence.embeddings, sequence.positions, last=sequence.lengths - 1,
                                                    intervention=intervention)
    return Prefill(last=last[:, 0], order=sequence.order, lengths=sequence.lengths, keys_values=keys_values)

  def _prefill_fastv(self, prompt, features, prune_layer, keep_count, counts):
    """FastV (METHOD section 7): layers 0 to L - 1 see all tokens, the others those that layer L - 1's last query looks at.

    What is dropped leaves the caches of all layers, so the answer's tokens see it in none.
    """
    decoder, whole = self.language_model, self.prune(prompt, features)
    x, early = decoder.blocks(whole.embeddings, whole.positions, 0, prune_layer - 1)
    attention = decoder.attention_weights(x, whole.positions, whole.lengths[:, None] - 1, prune_layer - 1)
    scores = attention.mean(axis=1)[:, 0]
    x, last = decoder.blocks(x, whole.positions, prune_layer - 1, prune_layer)

    rows = jax.vmap(lambda values, index: values[index])
    keep_count = min(keep_count, prompt.visual_order.shape[1])
    counts = jnp.full(prompt.next_position.shape, keep_count) if counts is None else counts
    scores = rows(scores, prompt_lib.places(whole.order, prompt.visual_order))
    kept = selection.top_k(scores, prompt.visual_mask, counts, keep_count)
    text, visual = (rows(x, prompt_lib.places(whole.order, order)) for order in (prompt.text_order, prompt.visual_order))
    sequence = prompt_lib.compact(prompt, text, visual, kept)
    at = prompt_lib.places(whole.order, sequence.order)
    early = [[rows(x, at) for x in first + second] for first, second in zip(early, last)]
    x, late = decoder.blocks(sequence.embeddings, sequence.positions, prune_layer, self.config.text.num_hidden_layers,
                             last=sequence.lengths - 1)
    keys_values = tuple(tuple(first) + second for first, second in zip(early, late))
    return Prefill(last=decoder.norm(x)[:, 0], order=sequence.order, lengths=sequence.lengths, keys_values=keys_values)

  def extend(self, tokens: jax.Array, positions: jax.Array, cache: Cache,
             intervention: Intervention = NOTHING) -> tuple[jax.Array, Cache]:
    """Runs the next text tokens against the cache.

    Args:
      tokens: [B, T] int32; T = 1 is a decoding step.
      positions: [B, T] int32, the same for every position axis: text.
      cache: with room for T more.
      intervention: over the cache's slots as keys.

    Returns:
      [B, T, D] normed hidden states, and the cache T tokens longer.
    """
    positions = jnp.repeat(positions[..., None], self.config.text.position_axes, axis=-1)
    return self.language_model.extend(self._embed(tokens), positions, cache, intervention)

  def logits(self, hidden: jax.Array) -> jax.Array:
    """[..., D] normed hidden states to [..., vocab] float32 logits."""
    if self.config.text.tie_word_embeddings:
      table = self.language_model.embed_tokens.embedding
      logits = jnp.einsum("...D,VD->...V", hidden, table, preferred_element_type=jnp.float32)
    else:
      logits = self.lm_head(hidden)
    return sharding.constrain(logits, self.mesh, sharding.BATCH, *(None,) * (logits.ndim - 2), "tensor")

  def _embed(self, tokens):
    # As the table lies first: each device looks up its own rows and columns.
    embeddings = sharding.constrain(self.language_model.embed_tokens(tokens), self.mesh, "data", None, "fsdp")
    return sharding.residual(embeddings, self.mesh)

  def _gather(self, prompt, features):
    dtype = self.language_model.embed_tokens.embedding.dtype
    features = sharding.features(features.astype(dtype), self.mesh)
    visual = sharding.constrain(features[prompt.visual_slots], self.mesh, None, None, sharding.BATCH)
    return sharding.constrain(visual, self.mesh, sharding.BATCH)

  def _scores(self, prompt, text, visual):
    layer = self.language_model.layers[0]
    norm = lambda x: layer.input_layernorm(x.astype(jnp.float32))
    return scoring.head_scores(self._projections(), norm(text), norm(visual), prompt.query_mask)

  def _projections(self) -> scoring.Projections:
    attention = self.language_model.layers[0].self_attn
    head_dim = self.config.text.head_dim
    query, key = (x.variables["params"] for x in (attention.q_proj, attention.k_proj))
    split = functools.partial(rearrange, pattern="... (N d) -> ... N d", d=head_dim)
    bias = lambda params: split(params["bias"]) if "bias" in params else None
    return scoring.Projections(split(query["kernel"]), split(key["kernel"]), bias(query), bias(key))


def make_lm_head(vocab_size: int) -> nn.Dense:
  """An untied head with float32 logits."""
  dot = functools.partial(dot_general, preferred_element_type=jnp.float32)
  return nn.Dense(vocab_size, use_bias=False, dot_general=dot)
