"""Where in a model visual tokens are removed: before the decoder, or after some of its layers, once or several times.

`hawk_jax.Pruning` says where; `prefill` runs it. Stages inside the vision tower are in `models.tower`.

A decoder stage is an entry of a schedule and a function of `SCORES`. Each keeps the tokens with the highest scores, at their
own positions. The caches of the layers before a stage hold all tokens that these layers saw.

Axes: B batch, L tokens of the compacted prompt, V visual slots, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from hawk_jax import checks
from hawk_jax import prompt as prompt_lib
from hawk_jax import pruning
from hawk_jax import schedule as schedule_lib
from models import tower
from models.prefill import Prefill
from models.prefill import Segment
from models.vision_language import Features
from models.vision_language import Inputs
from models.vision_language import VisionLanguageModel


def prefill(
  model: VisionLanguageModel, prompt: prompt_lib.Prompt, features: Features | None, plan: pruning.Plan | None = None
) -> Prefill:
  """Prunes, and runs the decoder over what is left; a method for `model.apply`.

  Args:
    model: a bound port.
    prompt: the language side of a batch.
    features: of `encode`, or None where no prompt has a picture.
    plan: None keeps all.
  """
  if plan is None or features is None:
    return model.run(model.prune(prompt, features), features)
  prompt, features = features.reach(prompt)
  if plan.pruning.stage == "decoder":
    return packed(_in_decoder(model, prompt, features, None, _single(plan)))
  if plan.cuts:
    at_input = None if plan.keeps_all_at_input else plan
    stops = [_Stop(cut.layer, cut.score, _ranked(plan, cut)) for cut in plan.cuts]
    return _in_decoder(model, prompt, features, at_input, stops)
  return model.run(model.prune(prompt, features, plan), features)


def survivors(
  model: VisionLanguageModel, prompt: prompt_lib.Prompt, features: Features, plan: pruning.Plan | None
) -> jax.Array:
  """Which visual tokens are left after the vision tower, before the decoder, and after each of its stages.

  A method for `model.apply`, with the arguments of `prefill`.

  Returns:
    [stages, B, V] bool.
  """
  out, left = prefill(model, prompt, features, plan), [features.reach(prompt)[0].visual_mask]
  for order in (*(part.order for part in out.earlier), out.order):
    found = jax.vmap(lambda row, at: row[at])(order, prompt_lib.places(order, prompt.visual_order))
    left.append(prompt.visual_mask & (found == prompt.visual_order))
  return jnp.stack(left)


def resolve(settings: pruning.Pruning, model: VisionLanguageModel) -> schedule_lib.Schedule:
  """The schedule of some settings, with a layer and a score in every stage of tower and decoder.

  Args:
    settings: of pruning.
    model: whose layers a schedule means that names none.

  Raises:
    ValueError: a stage that the model does not have.
  """
  found, layers = settings.schedule, model.config.text.num_hidden_layers
  decoder = [_resolve(stage, layers // 2, layers, SCORES) for stage in found.decoder]
  if found.tower is None:
    return dataclasses.replace(found, decoder=tuple(decoder))
  blocks = model.tower_layers()
  if blocks is None:
    raise ValueError(f"stages: {type(model).__name__} has no stage in its vision tower, got {found.tower}")
  return schedule_lib.Schedule(_resolve(found.tower, *blocks, tower.SCORES), found.input, tuple(decoder))


def depths(model: VisionLanguageModel) -> tuple[int, int]:
  """Blocks of the vision tower that run, 1 where it has no stage, and layers of the decoder."""
  return (model.tower_layers() or (1, 1))[1], model.config.text.num_hidden_layers


def _resolve(stage, default, layers, scores):
  layer = checks.whole(f"stages: layer of {stage}", stage.layer or default, 1, layers - 1)
  score = checks.choice(f"stages: score of {stage}", stage.score or next(iter(scores)), scores)
  return dataclasses.replace(stage, layer=layer, score=score)


def check(settings: pruning.Pruning, model: VisionLanguageModel) -> None:
  """Refuses settings that need stages or layers that the model does not have.

  Raises:
    ValueError: names the setting.
  """
  layers = model.config.text.num_hidden_layers
  if settings.rule.stage == "decoder":
    checks.whole("prune_layer", settings.prune_layer, 1, layers - 1)
  checks.whole("score_layer", settings.score_layer, 0, layers - 1)
  resolve(settings, model)


@dataclasses.dataclass(frozen=True)
class _Stop:
  """After `layer` layers, tokens are ranked by `score` and picked by a plan."""

  layer: int
  score: str
  plan: pruning.Plan


def _single(plan: pruning.Plan) -> list[_Stop]:
  """FastV (`prune_layer`), or HAWK's scores by a later layer (`score_layer`)."""
  if plan.pruning.rule.stage == "decoder":
    return [_Stop(plan.pruning.prune_layer, "last", plan)]
  return [_Stop(plan.pruning.score_layer, "layer", plan)]


def _ranked(plan: pruning.Plan, cut: pruning.Cut) -> pruning.Plan:
  """The plan of a stage of a schedule, which keeps the tokens with the highest scores."""
  return pruning.Plan(cut.keep_count, head_importance=plan.head_importance, counts=cut.counts)


def _in_decoder(
  model: VisionLanguageModel,
  prompt: prompt_lib.Prompt,
  features: Features,
  plan: pruning.Plan | None,
  stops: Sequence[_Stop],
) -> Prefill:
  """The decoder, with stops after some of its layers at which tokens are removed.

  Args:
    model: a bound port.
    prompt: the language side of a batch.
    features: of `encode`.
    plan: of the stage at the input; None: all tokens enter the decoder.
    stops: by ascending layer.
  """
  decoder, sequence = model.language_model, model.prune(prompt, features, plan)
  if plan is not None:
    prompt = prompt_lib.narrow(prompt, sequence, min(plan.keep_count, prompt.visual_mask.shape[1]))
  start, segments = 0, []
  for stop in stops:
    deepstack = model.deepstack(sequence, features)
    run = lambda x, *layers, sequence=sequence, deepstack=deepstack: decoder.blocks(
      x, sequence.positions, *layers, deepstack=deepstack
    )
    before, first = run(sequence.embeddings, start, stop.layer - 1)
    after, last = run(before, stop.layer - 1, stop.layer)
    segments.append(Segment(sequence.order, sequence.lengths, tuple(a + b for a, b in zip(first, last))))
    text, visual = prompt_lib.split(prompt, sequence, after)
    scores = SCORES[stop.score](Seen(model, prompt, sequence, before, after, text, visual, stop.layer, stop.plan))
    narrowed = pruning.reduce(prompt, text, visual, scores, stop.plan)
    prompt = prompt_lib.narrow(prompt, narrowed, min(stop.plan.keep_count, prompt.visual_mask.shape[1]))
    sequence, start = narrowed, stop.layer
  x, keys_values = decoder.blocks(
    sequence.embeddings,
    sequence.positions,
    start,
    len(decoder.layers),
    last=sequence.lengths - 1,
    deepstack=model.deepstack(sequence, features),
  )
  return Prefill(decoder.norm(x)[:, 0], sequence.order, sequence.lengths, keys_values, tuple(segments))


def packed(prefill: Prefill) -> Prefill:
  """Removes removed tokens from the caches of the layers before their stage too, as FastV does.

  The answer's tokens then see them in no layer.
  """
  rows = jax.vmap(lambda values, index: values[index])
  parts = []
  for part in prefill.earlier:
    at = prompt_lib.places(part.order, prefill.order)
    parts.append([tuple(rows(values, at) for values in each) for each in part.keys_values])
  keys_values = tuple(sum(each, ()) for each in zip(*parts, prefill.keys_values))
  return dataclasses.replace(prefill, keys_values=keys_values, earlier=())


@dataclasses.dataclass(frozen=True)
class Seen:
  """What the score of a decoder stage can read.

  Attributes:
    model: a bound port.
    prompt: with the visual tokens that are left.
    sequence: these tokens and the text.
    before: [B, L, D] hidden states that entered the last layer that ran.
    after: [B, L, D] hidden states that left it.
    text: [B, T, D] of these, the text tokens.
    visual: [B, V, D] of these, the visual tokens.
    layer: number of layers that ran.
    plan: of the stage.
  """

  model: VisionLanguageModel
  prompt: prompt_lib.Prompt
  sequence: prompt_lib.Sequence
  before: jax.Array
  after: jax.Array
  text: jax.Array
  visual: jax.Array
  layer: int
  plan: pruning.Plan

  def of_visual(self, values: jax.Array) -> jax.Array:
    """[B, L] numbers of all tokens to [B, V] of the visual ones."""
    return prompt_lib.split(self.prompt, self.sequence, values)[1]


def last(seen: Seen) -> jax.Array:
  """FastV (arXiv 2403.06764, the code): attention from the last token in the last layer that ran, mean over heads."""
  at = seen.sequence.lengths[:, None] - 1
  attention = seen.model.language_model.attention_weights(seen.before, seen.sequence.positions, at, seen.layer - 1)
  return seen.of_visual(attention.mean(axis=1)[:, 0])


def layer(seen: Seen) -> jax.Array:
  """HAWK's scores by the next layer, with the head weights and other settings of the plan."""
  projections = seen.model.projections(seen.layer)
  return pruning.score(seen.prompt, seen.text, seen.visual, projections, seen.plan)


def text(seen: Seen) -> jax.Array:
  """HAWK's scores by the next layer, with heads weighted by the attention that they put on visual tokens.

  The head importance belongs to the first layer, so it has no influence here.
  """
  settings = dataclasses.replace(seen.plan.pruning, head_weights="mass")
  return layer(dataclasses.replace(seen, plan=dataclasses.replace(seen.plan, pruning=settings, head_importance=None)))


def change(seen: Seen) -> jax.Array:
  """How much the last layer that ran changed a token (V2Drop): the L2 norm of the difference."""
  difference = (seen.after - seen.before).astype(jnp.float32)
  return seen.of_visual(jnp.linalg.norm(difference, axis=-1))


SCORES: dict[str, Callable[[Seen], jax.Array]] = {"text": text, "last": last, "change": change, "layer": layer}


def plan_tower(
  model: VisionLanguageModel, inputs: Inputs, settings: pruning.Pruning, head_importance=None
) -> tuple[tower.TowerPlan | None, np.ndarray | None]:
  """The stage in the vision tower, on the host.

  Args:
    model: a port.
    inputs: of `model.pack`.
    settings: of pruning.
    head_importance: as in `generate`.

  Returns:
    The `tower_plan` of `encode_pictures`, and the `limits` of `make_plan`; None without such a stage.

  Raises:
    ValueError: a stage that the model does not have, or an importance that does not fit.
  """
  stage = resolve(settings, model).tower
  if stage is None or inputs.vision is None:
    return None, None
  weights = pruning.head_weights(head_importance, model.config.text.num_attention_heads, len(inputs.prompt.text_tokens))
  cells, number = model.tower_cells(inputs.vision)
  plan = tower.make_plan(stage, settings, cells, number, weights)
  return plan, tower.limits(plan, inputs.prompt, cells)
