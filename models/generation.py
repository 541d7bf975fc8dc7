"""Generation: vision, pruned prefill and decoding, on the device from end to end.

Two compiled programs: the vision encoder, and prefill together with the whole decoding loop. They are separate because the
first depends on the sizes of pictures and the second only on the bucket of their visual tokens: with many sizes, the numbers
of compiled shapes add up instead of multiplying. Also, the features of a picture can serve several questions. The host does
not wait between the two programs.

Axes: B batch, V visual slots, L compacted prompt length, E end tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
import dataclasses
import functools
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from hawk_jax import checks
from hawk_jax.prompt import Prompt
from hawk_jax.pruning import Plan
from hawk_jax.pruning import Pruning
from models import cache as cache_lib
from models import sampling as sampling_lib
from models import sharding
from models import stages
from models import tower
from models.vision_language import Features
from models.vision_language import Inputs
from models.vision_language import VisionLanguageModel


@struct.dataclass
class Generation:
  """The result of `generate`.

  Attributes:
    tokens: [B, max_new_tokens] int32; after a row's end, the last token is repeated.
    lengths: [B] int32, tokens generated, the end token included.
    kept_positions: [B, L] int32, prompt positions of the text and visual tokens that were kept, ascending, -1 on padding. A
      row's positions count its own tokens, without padding.
    logits: [B, max_new_tokens, vocab] float32, the logits that chose each token, 0 after a row's end; None unless requested.
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
    logits: [B, max_new_tokens, vocab] float32 or None.
    cache: keys and values of the prompt and of all tokens but the last.
  """

  step: jax.Array
  done: jax.Array
  tokens: jax.Array
  lengths: jax.Array
  logits: jax.Array | None
  cache: cache_lib.Cache


def generate(
  model: VisionLanguageModel,
  params: dict[str, Any],
  inputs: Inputs,
  head_importance=None,
  *,
  features: Features | None = None,
  scores=None,
  selector_seed=0,
  max_new_tokens: int = 64,
  eos_token_ids: Iterable[int] = (),
  temperature: float = 0.0,
  top_k: int = 0,
  top_p: float = 1.0,
  seed: int = 0,
  return_logits: bool = False,
  **pruning,
) -> Generation:
  """Answers a batch of prompts after removing the visual tokens that matter least to each.

  Compiles once for every distinct set of buckets, `max_new_tokens`, number of end tokens, selector and normalization.
  Importance, ratios within one bucket, questions and sampling settings are data.

  Args:
    model: a port.
    params: its parameters.
    inputs: a batch of `model.pack`.
    head_importance: [H] or [B, H] weights of the first layer's heads; [1] or None: uniform head weights.
    features: of `encode` for the same pictures, so that the vision encoder need not run again; None: it runs.
    scores: [B, V] for the visual slots of `inputs.prompt`, which replace HAWK's; the selector `cdpruner` needs them, see
      `models.llava.clip_text`.
    selector_seed: a whole number, or [B], for selectors that draw at random.
    max_new_tokens: most tokens to generate.
    eos_token_ids: each of them ends a row.
    temperature: 0 is greedy.
    top_k: see `models.sampling.Sampling`.
    top_p: see `models.sampling.Sampling`.
    seed: of the sampling.
    return_logits: also return the logits that chose each token.
    **pruning: fields of `hawk_jax.Pruning`: keep_ratio, keep_count, keep_mass, rounding, normalization, selector, merge and
      others. With neither keep_ratio nor keep_count nor keep_mass, nothing is pruned.

  Raises:
    ValueError: an argument that is not allowed, by name; prompts that leave no positions for `max_new_tokens`.
  """
  _check_arguments(model, params, inputs)
  end_ids = check_length(model, inputs.prompt, max_new_tokens, eos_token_ids)
  sampling = sampling_lib.make(temperature, top_k, top_p, seed)
  checks.flag("return_logits", return_logits)
  settings = Pruning(**pruning)
  tower_plan, limits = stages.plan_tower(model, inputs, settings, head_importance)
  plan = make_plan(model, inputs.prompt, settings, head_importance, scores=scores, seeds=selector_seed, limits=limits)
  if features is None:
    features = encode_pictures(model, params, inputs, settings.rule.measures, tower_plan)
  if features is not None:
    _check_features(model, inputs.prompt, features, settings, limits)
  return prefill_and_decode(
    params,
    inputs.prompt,
    features,
    plan,
    sampling,
    end_ids,
    model=model,
    max_new_tokens=max_new_tokens,
    return_logits=return_logits,
  )


def check_length(
  model: VisionLanguageModel, prompt: Prompt, max_new_tokens: int, eos_token_ids: Iterable[int] = ()
) -> np.ndarray:
  """Checks that the longest answer fits the model's positions, and returns the end tokens as [E] int32.

  Raises:
    ValueError: an argument that is not allowed, by name; prompts that leave no positions for `max_new_tokens`.
  """
  checks.whole("max_new_tokens", max_new_tokens, 1)
  limit, last = model.config.text.max_position_embeddings, int(np.max(prompt.next_position))
  if last + max_new_tokens > limit:
    raise ValueError(
      f"max_new_tokens: got {checks.show(max_new_tokens)}, but the longest prompt ends at position {last - 1} and the model "
      f"has {limit} positions"
    )
  if not isinstance(eos_token_ids, Iterable) or isinstance(eos_token_ids, (str, bytes)):
    raise ValueError(f"eos_token_ids: got {checks.show(eos_token_ids)}, must be a list of token ids")
  return np.asarray([checks.whole("eos_token_ids", token, 0, checks.INT32_MAX) for token in eos_token_ids], np.int32)


def make_plan(
  model: VisionLanguageModel,
  prompt: Prompt,
  pruning: Pruning,
  head_importance=None,
  *,
  scores=None,
  seeds=0,
  limits: np.ndarray | None = None,
) -> Plan | None:
  """`Pruning.plan` for a model; None where nothing is pruned after the vision tower.

  Raises:
    ValueError: as `Pruning.plan`, or a stage or a measure that the model does not have.
  """
  stages.check(pruning, model)
  check_measures(model, pruning)
  pruning = dataclasses.replace(pruning, stages=str(stages.resolve(pruning, model)))
  heads = model.config.text.num_attention_heads
  return pruning.plan(prompt, heads, head_importance, scores=scores, seeds=seeds, limits=limits)


def check_measures(model: VisionLanguageModel, pruning: Pruning) -> None:
  """Refuses a selector that needs what the port cannot measure.

  Raises:
    ValueError: names the selector and the measure.
  """
  if missing := [name for name in pruning.rule.measures if name not in model.measures]:
    raise ValueError(
      f"selector: {pruning.selector} needs the {missing[0]} of visual tokens, {type(model).__name__} has none"
    )


def encode_pictures(
  model: VisionLanguageModel,
  params: dict[str, Any],
  inputs: Inputs,
  measures: Iterable[str] = (),
  tower_plan: tower.TowerPlan | None = None,
) -> Features | None:
  """Runs the vision encoder; returns the `features` of `generate`, or None if no prompt has a picture.

  Args:
    model: a port.
    params: its parameters.
    inputs: of `model.pack`.
    measures: what selectors need of the vision encoder, see `Selector.measures`.
    tower_plan: of `stages.plan_tower`, or None.
  """
  if inputs.vision is None:
    return None
  vision = sharding.place(inputs.vision, model.mesh)
  prompt = inputs.prompt if tower_plan is not None and tower_plan.plan is not None else None
  return encode(params, vision, prompt, tower_plan, model=model, measures=tuple(sorted({*measures})))


@functools.partial(jax.jit, static_argnames=("model", "measures"))
def encode(params, vision, prompt=None, tower_plan=None, *, model, measures: tuple[str, ...] = ()) -> Features:
  """The vision encoder; see the port's `encode`.

  Args:
    params: of the model.
    vision: the port's arrays.
    prompt: of the same batch, if the tower stage depends on it; else None.
    tower_plan: of `stages.plan_tower`, or None.
    model: a port.
    measures: as in `encode_pictures`.
  """

  def call(module, vision):
    wanted: dict[str, Any] = {"measures": measures} if measures else {}
    if tower_plan is not None:
      lens = tower.make_lens(module, prompt, tower_plan.plan)
      wanted["stage"] = tower.TowerStage(tower_plan, lens)
    return module.encode(vision, **wanted)

  features = model.apply({"params": params}, vision, method=call)
  return jax.tree.map(lambda x: sharding.features(x, model.mesh), features)


@functools.partial(jax.jit, static_argnames="model")
def survivors(params, prompt, features, plan, *, model) -> jax.Array:
  """[stages, B, V] bool, which visual tokens each stage leaves; see `models.stages.survivors`."""
  return model.apply({"params": params}, prompt, features, plan, method=stages.survivors)


@functools.partial(jax.jit, static_argnames="model")
def fused_scores(params, prompt, features, plan, *, model) -> jax.Array:
  """The scores by which a plan ranks visual tokens, [B, V] float32; see `VisionLanguageModel.fused_scores`."""
  return model.apply({"params": params}, prompt, features, plan, method="fused_scores")


@functools.partial(jax.jit, static_argnames=("model", "max_new_tokens", "return_logits"))
def prefill(params, prompt, features, plan, sampling, end_ids, *, model, max_new_tokens, return_logits=False):
  """Scores, prunes, runs the prompt, and chooses the first token.

  Returns:
    The loop's `State`, and [B, L] int32 the prompt positions kept.
  """
  out = model.apply({"params": params}, prompt, features, plan, method=stages.prefill)
  logits = model.apply({"params": params}, out.last, method="logits")
  batch, vocabulary = logits.shape
  state = State(
    step=jnp.int32(0),
    done=jnp.zeros([batch], bool),
    tokens=jnp.zeros([batch, max_new_tokens], jnp.int32),
    lengths=jnp.zeros([batch], jnp.int32),
    logits=jnp.zeros([batch, max_new_tokens, vocabulary], jnp.float32) if return_logits else None,
    cache=out.make_cache(max_new_tokens, model.mesh),
  )
  return _choose(state, logits, sampling, end_ids, model.mesh), sharding.constrain(out.order, model.mesh)


@functools.partial(jax.jit, static_argnames="model", donate_argnames="state")
def decode(params, state, next_position, sampling, end_ids, until=None, *, model) -> State:
  """Chooses tokens until every row has ended or `max_new_tokens` are chosen.

  Args:
    params: of the model.
    state: of `prefill`; donated.
    next_position: [B] int32, rotary position of the first generated token, which follows the unpruned prompt.
    sampling: as in `prefill`.
    end_ids: [E] int32.
    until: [] int32, stops when so many tokens are chosen, so that an answer can be shown while it grows; None: no such stop.
    model: a port.
  """
  room = state.tokens.shape[1]
  limit = room if until is None else jnp.minimum(until, room)

  def running(state):
    return (state.step < limit) & ~state.done.all()

  def advance(state):
    last = jax.lax.dynamic_index_in_dim(state.tokens, state.step - 1, axis=1)
    positions = (next_position + state.step - 1)[:, None]
    hidden, cache = model.apply({"params": params}, last, positions, state.cache, method="extend")
    logits = model.apply({"params": params}, hidden[:, 0], method="logits")
    return _choose(dataclasses.replace(state, cache=cache), logits, sampling, end_ids, model.mesh)

  return jax.lax.while_loop(running, advance, state)


@functools.partial(jax.jit, static_argnames=("model", "max_new_tokens", "return_logits"))
def prefill_and_decode(
  params, prompt, features, plan, sampling, end_ids, *, model, max_new_tokens, return_logits=False
) -> Generation:
  """`prefill` and `decode` in one program."""
  state, order = prefill(
    params,
    prompt,
    features,
    plan,
    sampling,
    end_ids,
    model=model,
    max_new_tokens=max_new_tokens,
    return_logits=return_logits,
  )
  state = decode(params, state, prompt.next_position, sampling, end_ids, model=model)
  # Whole on every device, so that each process may read it.
  return jax.tree.map(lambda x: sharding.constrain(x, model.mesh), finish(state, order))


def finish(state: State, order: jax.Array) -> Generation:
  """The result of the loop; what follows each row's end is overwritten."""
  generated = jnp.arange(state.tokens.shape[1]) < state.lengths[:, None]
  last = jnp.take_along_axis(state.tokens, state.lengths[:, None] - 1, axis=1)
  logits = None if state.logits is None else jnp.where(generated[..., None], state.logits, 0.0)
  return Generation(jnp.where(generated, state.tokens, last), state.lengths, order, logits)


def _check_arguments(model, params, inputs) -> None:
  """Refuses arguments in another order, and those of another model, as far as their types and shapes show it."""
  for name, value, kind in (("model", model, VisionLanguageModel), ("inputs", inputs, Inputs)):
    if not isinstance(value, kind):
      raise ValueError(f"{name}: got {type(value).__name__}, must be {kind.__name__}")
  text = model.config.text
  try:
    found = np.shape(params["language_model"]["embed_tokens"]["embedding"])
  except (TypeError, LookupError) as error:
    raise ValueError("params: must be the parameters of the model, of load_model; language_model is missing") from error
  if found != (expected := (text.vocab_size, text.hidden_size)):
    raise ValueError(f"params: belong to another model: the table of tokens has shape {found}, this model's has {expected}")
  if (axes := inputs.prompt.text_positions.shape[-1]) != text.position_axes:
    raise ValueError(f"inputs: were packed for a model with {axes} position axes, this one has {text.position_axes}")
  if (largest := int(np.max(inputs.prompt.text_tokens))) >= text.vocab_size:
    raise ValueError(f"inputs: were packed for another model, with token {largest}; this one has {text.vocab_size} tokens")


def _check_features(model, prompt, features, pruning, limits) -> None:
  """Raises ValueError for features that belong to other pictures, as type or shape shows, or that lack a measure."""
  if not isinstance(features, Features):
    raise ValueError(f"features: got {type(features).__name__}, must be the result of encode_pictures")
  if missing := [name for name in pruning.rule.measures if name not in features.measures]:
    raise ValueError(f"features: they hold no {missing[0]}, which the selector {pruning.selector} needs")
  if (limits is None) != (features.rows is None):
    raise ValueError(f"features: they must be encoded with the tower stage of the same stages, {pruning.stages!r}")
  rows, width = features.tokens.shape[0] if features.rows is None else len(features.rows), features.tokens.shape[1]
  needed = int(np.max(prompt.visual_slots, initial=-1)) + 1
  if width != model.config.text.hidden_size or rows < needed:
    raise ValueError(
      f"features: got [{rows}, {width}], the prompts need at least {needed} rows of width {model.config.text.hidden_size}"
    )


def _choose(state: State, logits: jax.Array, sampling, end_ids, mesh) -> State:
  """Writes the next token of every row; what rows get after their end is overwritten by `finish`."""
  token = sharding.constrain(sampling_lib.choose(logits, state.step, sampling), mesh)
  if state.logits is not None:
    state = dataclasses.replace(
      state, logits=jax.lax.dynamic_update_slice_in_dim(state.logits, logits[:, None], state.step, axis=1)
    )
  tokens = jax.lax.dynamic_update_slice_in_dim(state.tokens, token[:, None], state.step, axis=1)
  return dataclasses.replace(
    state,
    step=state.step + 1,
    done=state.done | jnp.isin(token, end_ids),
    tokens=sharding.constrain(tokens, mesh),
    lengths=sharding.constrain(state.lengths + ~state.done, mesh),
  )
