"""What every port is: a vision encoder, the shared decoder, and HAWK's pruning between them.

A port subclasses `VisionLanguageModel`, sets up `self.language_model` (a `Decoder`), and implements the methods that raise
NotImplementedError here; docs/porting.md walks through them.

Axes: B batch, T text slots, V visual slots, K kept slots, L = T + K, F feature rows, H heads, D hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any, ClassVar

from einops import rearrange
from flax import linen as nn
from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from hawk_jax import prompt as prompt_lib
from hawk_jax import pruning
from hawk_jax import scoring
from models import rope
from models import sharding
from models.cache import Cache
from models.cpu import dot_general
from models.cpu import look_up
from models.decoder import DeepStack
from models.decoder import Intervention
from models.decoder import NOTHING
from models.prefill import Prefill
from models.tower import TowerStage


@dataclasses.dataclass(frozen=True)
class View:
  """A grid of visual tokens that covers a picture, for drawing.

  Attributes:
    picture: number of the picture in its prompt; each temporal slice of a video counts as one.
    rows: of tokens.
    columns: of tokens.
    newlines: whether each row ends in one more token, which shows nothing. A view without columns is such a token alone.
  """

  picture: int
  rows: int
  columns: int
  newlines: bool = False

  @property
  def count(self) -> int:
    """Visual tokens of the view."""
    return self.rows * (self.columns + self.newlines)


@functools.partial(
  jax.tree_util.register_dataclass, data_fields=("prompt", "vision"), meta_fields=(), drop_fields=("views",)
)
@dataclasses.dataclass(frozen=True)
class Inputs:
  """A packed batch: fixed shapes, NumPy on the host.

  Attributes:
    prompt: the language side.
    vision: the port's own arrays, or None where no prompt has a picture.
    views: for each prompt, where its visual tokens are on its pictures, in prompt order. They stay on the host: JAX's
      transformations do not see them.
  """

  prompt: prompt_lib.Prompt
  vision: Any
  views: tuple[tuple[View, ...], ...] = ()


@struct.dataclass
class Features:
  """The vision encoder's output for a batch; `Prompt.visual_slots` points to its rows.

  Attributes:
    tokens: [F, D] visual tokens; padding rows hold numbers without meaning.
    levels: [F, D] each, added to the visual tokens after each of the first decoder layers (DeepStack); most models have
      none. Scores and selectors see only `tokens`.
    measures: by name, [F] float32, what some selectors need besides; see `hawk_jax.selectors.Selector.relevance`.
    rows: after a tower stage that removed tokens, int32: for every number that `Prompt.visual_slots` may hold, the row of
      `tokens` and `levels`, -1 if it was removed; None: the number itself.
  """

  tokens: jax.Array
  levels: tuple[jax.Array, ...] = ()
  measures: Mapping[str, jax.Array] = struct.field(default_factory=dict)
  rows: jax.Array | None = None

  def reach(self, prompt: prompt_lib.Prompt) -> tuple[prompt_lib.Prompt, Features]:
    """The prompts without the visual tokens that a tower stage removed, and features to whose rows these prompts point."""
    if self.rows is None:
      return prompt, self
    slots = self.rows[prompt.visual_slots]
    order = jnp.where(slots >= 0, prompt.visual_order, -1)
    reached = dataclasses.replace(prompt, visual_slots=jnp.maximum(slots, 0), visual_order=order)
    return reached, dataclasses.replace(self, rows=None)


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
    names: the names of the parameters in checkpoints.
    axes: how the parameters outside the decoder are split over a mesh, see `models.sharding.param_specs`.
    measures: names of what `encode` can measure.
  """

  config: Any
  mesh: jax.sharding.Mesh | None = None
  names: ClassVar[Any]  # models.checkpoints.names.Names
  axes: ClassVar[tuple[tuple[str, jax.sharding.PartitionSpec], ...]]
  measures: ClassVar[tuple[str, ...]] = ()

  def __call__(
    self,
    inputs: Inputs,
    head_importance: jax.Array | None = None,
    *,
    keep_count: int | None = None,
    counts: jax.Array | None = None,
    normalization: str = "l2",
  ) -> Output:
    """Logits of prompts, pruned to `keep_count` visual tokens if it is given.

    Args:
      inputs: a batch of `pack`.
      head_importance: [H] or [B, H] float32; None: uniform head weights.
      keep_count: static K, the most visual tokens that a row keeps; None keeps all.
      counts: [B] int32, tokens that each row keeps, at most K; None: K, or all tokens of a row that has fewer.
      normalization: of the scores, see `hawk_jax.scoring.normalize`.

    Raises:
      ValueError: an argument that is not allowed, by name.
    """
    settings = pruning.Pruning(keep_count=keep_count, normalization=normalization)
    if counts is not None and keep_count is None:
      raise ValueError("counts: needs keep_count, their bound")
    plan = None if keep_count is None else pruning.Plan(keep_count, settings, head_importance, counts)
    features = None if inputs.vision is None else self.encode(inputs.vision)
    sequence = self.prune(inputs.prompt, features, plan)
    hidden, _ = self.language_model.prefill(
      sequence.embeddings, sequence.positions, deepstack=self.deepstack(sequence, features)
    )
    return Output(logits=self.logits(hidden), order=sequence.order)

  def encode(self, vision, measures: tuple[str, ...] = (), stage: TowerStage | None = None) -> Features:
    """The port's vision arrays to features.

    Args:
      vision: of `pack`.
      measures: what to measure, names of the port's `measures`; a port without any need not have this argument.
      stage: after which some visual tokens go on through the tower; a port without `tower_layers` need not have this
        argument.
    """
    raise NotImplementedError

  def as_features(self, tokens: jax.Array) -> Features:
    """Features of visual tokens in the order in which `encode` makes them; for what a tower stage looks at."""
    return Features(tokens)

  @nn.nowrap
  def pack(self, **batch) -> Inputs:
    """The arrays of a Hugging Face processor to fixed shapes, on the host."""
    raise NotImplementedError

  @nn.nowrap
  def example(self) -> Inputs:
    """The smallest batch with a picture, for shape inference."""
    raise NotImplementedError

  @nn.nowrap
  def synthetic_batch(self, sizes, text_tokens: int, rng: np.random.Generator | None = None) -> dict[str, np.ndarray]:
    """A processor's arrays for measurements: for each picture size, a prompt of random words around a picture of noise.

    Args:
      sizes: (height, width) in pixels of each prompt's picture.
      text_tokens: of each prompt.
      rng: source of words and noise; None: equal words and black pictures, where only shapes matter.
    """
    raise NotImplementedError

  @nn.nowrap
  def picture_size(self, visual_tokens: int | None = None) -> tuple[int, int]:
    """Height and width in pixels of a picture with so many visual tokens; None: a typical number.

    Raises:
      ValueError: no picture has that many.
    """
    raise NotImplementedError

  @nn.nowrap
  def vision_flops(self, arrays) -> float:
    """Floating-point operations of the vision encoder for a processor's arrays; see `experiments.speed.flops`."""
    raise NotImplementedError

  @nn.nowrap
  def projector(self, visual_tokens: int) -> tuple[nn.Module, tuple[int, ...]]:
    """The module that makes visual tokens, unbound, and the shape of its input for so many of them; for measurements."""
    raise NotImplementedError

  @nn.nowrap
  def stored_shapes(self) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors that checkpoints store with more axes than the parameters have, by dotted path."""
    return {}

  @nn.nowrap
  def vision_heads(self) -> int:
    """Attention heads of the vision tower."""
    raise NotImplementedError

  @nn.nowrap
  def tower_layers(self) -> tuple[int, int] | None:
    """Blocks of the vision tower that run before a tower stage unless a schedule says it, and all blocks that run.

    None: the port has no tower stage.
    """
    return None

  @nn.nowrap
  def tower_cells(self, vision) -> tuple[np.ndarray, int]:
    """Which visual tokens a tower stage ranks together, on the host.

    Args:
      vision: of `pack`.

    Returns:
      [F] int, the cell of every row of features, -1 for rows of no cell; and the number of cells, empty ones included.
    """
    raise NotImplementedError

  @nn.nowrap
  def leaves_out(self, tensor: str) -> bool:
    """Whether a tensor with this dotted path may be in checkpoints although the model has no such parameter."""
    return tensor == "lm_head.weight" and self.config.text.tie_word_embeddings

  def scores(self, prompt: prompt_lib.Prompt, features: Features, layer: int = 0) -> jax.Array:
    """Raw per-head score of every visual token by a decoder layer, [B, H, V] float32 (docs/method.md, "Scores")."""
    prompt, features = features.reach(prompt)
    text, visual = self._tokens(prompt, features, layer)
    return scoring.head_scores(self.projections(layer), text, visual, prompt.query_mask)

  def fused_scores(self, prompt: prompt_lib.Prompt, features: Features, plan: pruning.Plan) -> jax.Array:
    """The scores by which a plan ranks visual tokens, [B, V] float32."""
    layer = plan.pruning.score_layer
    prompt, features = features.reach(prompt)
    text, visual = self._tokens(prompt, features, layer)
    return pruning.score(prompt, text, visual, self.projections(layer), plan, self._measured(prompt, features))

  def prune(
    self, prompt: prompt_lib.Prompt, features: Features | None, plan: pruning.Plan | None = None
  ) -> prompt_lib.Sequence:
    """Embeds prompts and removes the visual tokens that a plan does not keep; see `hawk_jax.pruning.prune`.

    Args:
      prompt: the language side of a batch.
      features: of `encode`, or None where no prompt has a picture.
      plan: None keeps all.
    """
    text = self._embed(prompt.text_tokens)
    if features is None:
      return pruning.prune(prompt, text, text[:, :0])
    prompt, features = features.reach(prompt)
    visual = self._gather(prompt, features)
    if plan is None:
      return pruning.prune(prompt, text, visual)
    return pruning.prune(prompt, text, visual, self.projections(), plan, self._measured(prompt, features))

  def deepstack(self, sequence: prompt_lib.Sequence, features: Features | None) -> DeepStack | None:
    """What the decoder adds to the visual tokens of a sequence, or None."""
    if features is None or not features.levels:
      return None
    return DeepStack(features.levels, sequence.slots, sequence.visual, self.mesh)

  def run(self, sequence: prompt_lib.Sequence, features: Features | None, intervention: Intervention = NOTHING) -> Prefill:
    """The decoder over a compacted prompt.

    Args:
      sequence: of `prune`.
      features: as given to `prune`.
      intervention: over the sequence's L tokens as keys.
    """
    last, keys_values = self.language_model.prefill(
      sequence.embeddings,
      sequence.positions,
      last=sequence.lengths - 1,
      deepstack=self.deepstack(sequence, features),
      intervention=intervention,
    )
    return Prefill(last=last[:, 0], order=sequence.order, lengths=sequence.lengths, keys_values=keys_values)

  def extend(
    self, tokens: jax.Array, positions: jax.Array, cache: Cache, intervention: Intervention = NOTHING
  ) -> tuple[jax.Array, Cache]:
    """Runs the next text tokens against the cache.

    Args:
      tokens: [B, T] int32; T = 1 is a decoding step.
      positions: [B, T] int32, the same on every position axis, since they are text.
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
      numbers = (((hidden.ndim - 1,), (1,)), ((), ()))
      logits = dot_general(hidden, table, numbers, preferred_element_type=jnp.float32)
    else:
      logits = self.lm_head(hidden)
    return sharding.constrain(logits, self.mesh, sharding.BATCH, *(None,) * (logits.ndim - 2), "tensor")

  def _embed(self, tokens):
    # In the layout of the table first: each device looks up its own rows and columns.
    embeddings = look_up(self.language_model.embed_tokens.embedding, tokens)
    embeddings = sharding.constrain(embeddings, self.mesh, "data", None, "fsdp")
    return sharding.residual(embeddings, self.mesh)

  def _gather(self, prompt, features):
    dtype = self.language_model.embed_tokens.embedding.dtype
    return sharding.look_up(features.tokens.astype(dtype), prompt.visual_slots, self.mesh)

  def _tokens(self, prompt, features, layer):
    """[B, T, D] text and [B, V, D] visual tokens as a decoder layer gets them; the first gets the embeddings."""
    if not layer:
      return self._embed(prompt.text_tokens), self._gather(prompt, features)
    whole = self.prune(prompt, features)
    x, _ = self.language_model.blocks(whole.embeddings, whole.positions, 0, layer, deepstack=self.deepstack(whole, features))
    return prompt_lib.split(prompt, whole, x)

  def _measured(self, prompt, features):
    """[B, V] what the port measured of each visual token, by name."""
    return {name: values[prompt.visual_slots] for name, values in features.measures.items()}

  def projections(self, layer: int = 0) -> scoring.Projections:
    """A decoder layer's query and key projections."""
    block, frequencies = self.language_model.layers[layer], self.config.text.frequencies
    params = lambda module: module.variables["params"]
    split = functools.partial(rearrange, pattern="... (N d) -> ... N d", d=self.config.text.head_dim)
    bias = lambda projection: split(projection["bias"]) if "bias" in projection else None
    query, key = params(block.self_attn.q_proj), params(block.self_attn.k_proj)
    norm = lambda name: params(getattr(block.self_attn, name))["scale"] if self.config.text.qk_norm else None
    return scoring.Projections(
      query=split(query["kernel"]),
      key=split(key["kernel"]),
      query_bias=bias(query),
      key_bias=bias(key),
      input_norm=params(block.input_layernorm)["scale"],
      query_norm=norm("q_norm"),
      key_norm=norm("k_norm"),
      epsilon=self.config.text.rms_norm_eps,
      rotate=lambda x, positions: rope.rotate(x, *rope.rotation(positions, frequencies)),
    )


def make_lm_head(vocab_size: int) -> nn.Dense:
  """An untied head with float32 logits."""
  dot = functools.partial(dot_general, preferred_element_type=jnp.float32)
  return nn.Dense(vocab_size, use_bias=False, dot_general=dot)
