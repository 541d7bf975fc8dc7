"""Generation: vision, pruned prefill and decoding, on the device from end to end.

Two compiled programs: the vision encoder, and prefill with the whole decoding loop. Apart, because a picture's size shapes
the first and only its bucket of visual tokens the second, so a data set of many sizes compiles their sum, not their
product; and because features can serve many questions. Nothing waits on the host between them.

Axes: B batch, L compacted prompt length, E end tokens, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import functools

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from hawk_jax import importance
from hawk_jax import scoring
from hawk_jax import selection
from hawk_jax import selectors
from models import decoder
from models import sampling as sampling_lib
from models import sharding
from models.buckets import bucket

KEEP_MINIMUM = 8


@struct.dataclass
class Generation:
  """What `generate` returns.

  Attributes:
    tokens: [B, max_new_tokens] int32; after a row's end the end token is repeated.
    lengths: [B] int32, tokens generated, the end token included.
    kept_positions: [B, L] int32, prompt positions of the text and visual tokens that stayed, ascending, -1 pads. A row's
      positions count its own tokens, padding not included.
    logits: [B, max_new_tokens, V] float32, the logits that chose each token, 0 after a row's end; None unless asked for.
  """

  tokens: jax.Array
  lengths: jax.Array
  kept_positions: jax.Array
  logits: jax.Array | None


@struct.dataclass
class State:
  """The decoding loop's state.

  Attributes:
    step: [] int32, tokens chosen so far.
    done: [B] bool, rows that have chosen an end token.
    tokens: [B, max_new_tokens] int32.
    lengths: [B] int32.
    logits: [B, max_new_tokens, V] float32 or None.
    cache: keys and values of the prompt and of all tokens but the last.
  """

  step: jax.Array
  done: jax.Array
  tokens: jax.Array
  lengths: jax.Array
  logits: jax.Array | None
  cache: decoder.Cache


@struct.dataclass
class Pruning:
  """What pruning is told; arrays but for the bound.

  Attributes:
    head_importance: [H] or [B, H] float32.
    counts: [B] int32, visual tokens each row keeps.
    seeds: [B] uint32, for selectors that draw.
    keep_mass: [] float32 share of the softmaxed score that rows keep at most, or None.
    scores: [B, V] float32 instead of HAWK's fused scores, or None.
    keep_count: static bound on counts.
    normalization: of the scores.
    selector: name of the rule that picks.
    prune_layer: layers that `fastv` runs on all tokens.
  """

  head_importance: jax.Array
  counts: jax.Array
  seeds: jax.Array
  keep_mass: jax.Array | None
  scores: jax.Array | None
  keep_count: int = struct.field(pytree_node=False)
  normalization: str = struct.field(pytree_node=False)
  selector: str = struct.field(pytree_node=False)
  prune_layer: int = struct.field(pytree_node=False)


def plan_pruning(model, prompt, head_importance=None, *, keep_ratio=None, keep_count=None, normalization="l2",
                 rounding="ceil", selector="hawk", selector_seed=0, keep_mass=None, scores=None,
                 prune_layer=2) -> Pruning | None:
  """Checks the arguments of `generate` that concern pruning; None where nothing is pruned."""
  heads = model.config.text.num_attention_heads
  if head_importance is None:
    head_importance = np.ones([1], np.float32)
  weights = importance.validate(head_importance)
  weights = importance.validate(weights if weights.shape[-1] != 1 else np.repeat(weights, heads, axis=-1), heads)
  batch = prompt.text_tokens.shape[0]
  if weights.ndim == 2 and weights.shape[0] != batch:
    raise ValueError(f"head_importance: got weights for {weights.shape[0]} prompts, the batch has {batch}")
  if normalization not in scoring.NORMALIZATIONS:
    raise ValueError(f"normalization: got {normalization!r}, allowed are {', '.join(scoring.NORMALIZATIONS)}")
  if selector not in (allowed := (*selectors.SELECTORS, *selectors.IN_DECODER)):
    raise ValueError(f"selector: got {selector!r}, allowed are {', '.join(allowed)}")
  seeds = np.asarray(selector_seed)
  if seeds.shape not in ((), (batch,)) or not np.issubdtype(seeds.dtype, np.integer):
    raise ValueError(f"selector_seed: got {seeds.dtype} of shape {seeds.shape}, must be an integer, or one a prompt")
  visual = np.asarray(prompt.visual_order >= 0).sum(-1)
  counts = selection.keep_counts(visual, keep_ratio=keep_ratio, keep_count=keep_count, rounding=rounding)
  layers = model.config.text.num_hidden_layers
  if selector == "fastv" and (int(prune_layer) != prune_layer or not 0 < prune_layer < layers):
    raise ValueError(f"prune_layer: got {prune_layer}, must be a whole number from 1 to {layers - 1}")
  if keep_mass is not None and not 0.0 < keep_mass <= 1.0:
    raise ValueError(f"keep_mass: got {keep_mass}, must be in (0, 1]")
  for name, value in (("keep_mass", keep_mass), ("scores", scores)):
    if value is not None and selector == "fastv":
      raise ValueError(f"{name}: fastv does not use scores but its own; choose another selector")
  selectors.check_scores(selector, scores)
  if scores is not None:
    scores = np.asarray(scores, np.float32)
    if scores.shape != prompt.visual_order.shape or not np.isfinite(scores).all():
      raise ValueError(f"scores: got shape {scores.shape}, must be finite numbers {list(prompt.visual_order.shape)}, "
                       "one a visual slot")
  if (counts == visual).all() and keep_mass is None:
    return None
  bound = min(bucket(int(counts.max()), KEEP_MINIMUM), prompt.visual_order.shape[1])
  seeds = np.broadcast_to(seeds.astype(np.uint32), [batch])
  keep_mass = None if keep_mass is None else np.float32(keep_mass)
  return Pruning(weights, counts, seeds, keep_mass, scores, bound, normalization, selector, int(prune_layer))


def pruning_arguments(pruning: Pruning | None) -> dict:
  """What a port's `prefill` is told, and `prune` unless the selector works inside the decoder."""
  arguments = {} if pruning is None else {field.name: getattr(pruning, field.name) for field in dataclasses.fields(pruning)}
  if arguments.get("selector") not in selectors.IN_DECODER:
    arguments.pop("prune_layer", None)
  return arguments


@functools.partial(jax.jit, static_argnames="model")
def encode(params, vision, *, model) -> jax.Array:
  """The vision encoder; see the port's `encode`."""
  return sharding.features(model.apply({"params": params}, vision, method="encode"), model.mesh)


@functools.partial(jax.jit, static_argnames=("model", "max_new_tokens", "return_logits"))
def prefill(params, prompt, features, pruning, sampling, end_ids, *, model, max_new_tokens, return_logits=False):
  """Scores, prunes, runs the prompt, and chooses the first token.

  Returns:
    The loop's `State`, and [B, L] int32 the prompt positions kept.
  """
  out = model.apply({"params": params}, prompt, features, method="prefill", **pruning_arguments(pruning))
  logits = model.apply({"params": params}, out.last, method="logits")
  batch, vocabulary = logits.shape
  state = State(
      step=jnp.int32(0),
      done=jnp.zeros([batch], bool),
      tokens=jnp.zeros([batch, max_new_tokens], jnp.int32),
      lengths=jnp.zeros([batch], jnp.int32),
      logits=jnp.zeros([batch, max_new_tokens, vocabulary], jnp.float32) if return_logits else None,
      cache=decoder.make_cache(out.keys_values, out.lengths, max_new_tokens, model.mesh))
  return _choose(state, logits, sampling, end_ids, model.mesh), sharding.constrain(out.order, model.mesh)


@functools.partial(jax.jit, static_argnames="model", donate_argnames="state")
def decode(params, state, next_position, sampling, end_ids, *, model) -> State:
  """Chooses tokens until every row has ended or the room is used up.

  Args:
    params: of the model.
    state: of `prefill`; donated.
    next_position: [B] int32, rotary position of the first generated token: after the unpruned prompt.
    sampling: as in `prefill`.
    end_ids: [E] int32.
    model: a port.
  """

  def running(state):
    return (state.step < state.tokens.shape[1]) & ~state.done.all()

  def advance(state):
    last = jax.lax.dynamic_index_in_dim(state.tokens, state.step - 1, axis=1)
    positions = (next_position + state.step - 1)[:, None]
    hidden, cache = model.apply({"params": params}, last, positions, state.cache, method="extend")
    logits = model.apply({"params": params}, hidden[:, 0], method="logits")
    return _choose(state.replace(cache=cache), logits, sampling, end_ids, model.mesh)

  return jax.lax.while_loop(running, advance, state)


@functools.partial(jax.jit, static_argnames=("model", "max_new_tokens", "return_logits"))
def prefill_and_decode(params, prompt, features, pruning, sampling, end_ids, *, model, max_new_tokens, return_logits):
  """`prefill` and `decode` in one program."""
  state, order = prefill(params, prompt, features, pruning, sampling, end_ids, model=model,
                         max_new_tokens=max_new_tokens, return_logits=return_logits)
  state = decode(params, state, prompt.next_position, sampling, end_ids, model=model)
  # Whole on every device: each process may read it.
  return jax.tree.map(lambda x: sharding.constrain(x, model.mesh), finish(state, order))


def generate(model, params, inputs, head_importance=None, *, keep_ratio: float | None = None,
             keep_count: int | None = None, normalization: str = "l2", rounding: str = "ceil",
             selector: str = "hawk", selector_seed=0, keep_mass: float | None = None, scores=None, prune_layer: int = 2,
             max_new_tokens: int = 64, eos_token_ids=(),
             temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0, seed: int = 0,
             return_logits: bool = False) -> Generation:
  """Answers a batch of prompts, after dropping the visual tokens that matter least to each.

  Compiled once for every distinct set of buckets, `max_new_tokens`, normalization and number of end tokens; importance,
  ratios under one bucket, questions and sampling settings are data.

  Args:
    model: a port.
    params: its parameters.
    inputs: a batch of `model.pack`.
    head_importance: [H] or [B, H] weights of the first layer's heads, or [1] or None for equal ones.
    keep_ratio: share of each prompt's visual tokens to keep, in (0, 1].
    keep_count: number of visual tokens to keep instead. Neither: no pruning.
    normalization: `l2`, `softmax`, `minmax` or `none`, see `hawk_jax.scoring.normalize`.
    rounding: of V * keep_ratio, `ceil` (the authors' code) or `floor` (the paper).
    selector: the rule that picks, a name of `hawk_jax.selectors.SELECTORS`, or `fastv`.
    selector_seed: integer, or [B], for selectors that draw.
    keep_mass: adaptive budget: each prompt keeps the fewest tokens that hold this share of its softmaxed scores, in (0, 1],
      and no more than keep_ratio or keep_count allow; see `hawk_jax.budgets`.
    scores: [B, V] of the visual slots of `inputs.prompt`, instead of HAWK's; the selector `cdpruner` needs them, see
      `models.llava.clip_text`.
    prune_layer: layers that the selector `fastv` runs on all tokens.
    max_new_tokens: most tokens to generate.
    eos_token_ids: any of them ends a row.
    temperature: 0 is greedy.
    top_k: see `models.sampling.Sampling`.
    top_p: see `models.sampling.Sampling`.
    seed: of the sampling.
    return_logits: also return the logits that chose each token.

  Raises:
    ValueError: an argument outside its range, by name; prompts that leave no positions for `max_new_tokens`.
  """
  end_ids, sampling = check_decoding(model, inputs.prompt, max_new_tokens, eos_token_ids, temperature, top_k, top_p, seed)
  pruning = plan_pruning(model, inputs.prompt, head_importance, keep_ratio=keep_ratio, keep_count=keep_count,
                         normalization=normalization, rounding=rounding, selector=selector, selector_seed=selector_seed,
                         keep_mass=keep_mass, scores=scores, prune_layer=prune_layer)
  features = None if inputs.vision is None else encode(params, sharding.place(inputs.vision, model.mesh), model=model)
  return prefill_and_decode(params, inputs.prompt, features, pruning, sampling, end_ids, model=model,
                            max_new_tokens=max_new_tokens, return_logits=return_logits)


def check_decoding(model, prompt, max_new_tokens, eos_token_ids=(), temperature=0.0, top_k=0, top_p=1.0, seed=0):
  """Checks the arguments of `generate` that concern decoding; end ids as an array, and the sampling settings."""
  if isinstance(max_new_tokens, bool) or int(max_new_tokens) != max_new_tokens or max_new_tokens < 1:
    raise ValueError(f"max_new_tokens: got {max_new_tokens}, must be a whole number of at least 1")
  limit, furthest = model.config.text.max_position_embeddings, int(np.max(prompt.next_position))
  if furthest + max_new_tokens > limit:
    raise ValueError(f"max_new_tokens: got {max_new_tokens}, but the longest prompt ends at position {furthest - 1} and "
                     f"the model has {limit} positions")
  end_ids = np.asarray(eos_token_ids, np.int32).reshape(-1)
  return end_ids, sampling_lib.make(temperature, top_k, top_p, seed)


def _choose(state: State, logits: jax.Array, sampling, end_ids, mesh) -> State:
  """Writes the next token of every row; what ended rows get is overwritten by `finish`."""
  token = sharding.constrain(sampling_lib.choose(logits, state.step, sampling), mesh)
  if state.logits is not None:
    state = state.replace(
        logits=jax.lax.dynamic_update_slice_in_dim(state.logits, logits[:, None], state.step, axis=1))
  tokens = jax.lax.dynamic_update_slice_in_dim(state.tokens, token[:, None], state.step, axis=1)
  return state.replace(
      step=state.step + 1,
      done=state.done | jnp.isin(token, end_ids),
      tokens=sharding.constrain(tokens, mesh),
      lengths=sharding.constrain(state.lengths + ~state.done, mesh))


def finish(state: State, order: jax.Array) -> Generation:
  """The loop's result, with what lies past each row's end made plain."""
  generated = jnp.arange(state.tokens.shape[1]) < state.lengths[:, None]
  last = jnp.take_along_axis(state.tokens, state.lengths[:, None] - 1, axis=1)
  logits = None if state.logits is None else jnp.where(generated[..., None], state.logits, 0.0)
  return Generation(jnp.where(generated, state.tokens, last), state.lengths, order, logits)
