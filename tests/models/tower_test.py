"""The stage inside the vision tower: against blocks that run on all tokens under masks, and against NumPy."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from hawk_jax import pruning
from models import generate
from models import generation
from models import rope
from models import stages
from models import tower
from models.qwen_vl import subset
from tests.reference import checks
from tests.reference import llava
from tests.reference import llava_onevision
from tests.reference import numpy_hawk
from tests.reference import qwen2_5_vl
from tests.reference import qwen3_vl
from tests.reference.compilations import compilations

# Full and ragged windows, several slices, slices of different lengths, and rows of the batch with different counts.
PROMPTS = ("ragged_6x50", "image_and_video", "two_images")
SHARE = 0.4


def staged_plan(model, inputs, stages_text, importance=None):
  """What `generation` plans of a tower stage."""
  return stages.plan_tower(model, inputs, pruning.Pruning(stages=stages_text), importance)


def numpy_restore(early, late, kept):
  """[L, E] last states; early [L, E], late [len(kept), E]; what tokens show is their early state, as vectors to compare."""
  shown = early.reshape(len(early), -1)
  unit = shown / np.linalg.norm(shown, axis=1, keepdims=True)
  out = np.zeros_like(early)
  for token in range(len(early)):
    near = np.argsort(-(unit[kept] @ unit[token]), kind="stable")[: tower.NEIGHBORS]
    out[token] = early[token] + np.mean([late[at] - early[kept[at]] for at in near], axis=0)
  out[kept] = late
  return out


class RestoreTest(absltest.TestCase):
  def test_equals_numpy(self):
    rng = np.random.default_rng(0)
    early, late = rng.standard_normal([2, 30, 6]).astype(np.float32), rng.standard_normal([2, 16, 6]).astype(np.float32)
    chosen = [np.sort(rng.permutation(30)[:16]), np.sort(rng.permutation(20)[:4])]
    kept = np.full([2, 16], -1, np.int32)
    for row, tokens in zip(kept, chosen):
      row[: len(tokens)] = tokens
    real = np.arange(30) < np.asarray([[30], [20]])
    found = np.asarray(tower.restore(early, late, kept, real, early))
    for number, tokens in enumerate(chosen):
      size = real[number].sum()
      expected = numpy_restore(early[number, :size], late[number, : len(tokens)], tokens)
      np.testing.assert_allclose(found[number, :size], expected, atol=1e-5)
      np.testing.assert_array_equal(found[number, tokens], late[number, : len(tokens)])


@functools.partial(jax.jit, static_argnames=("model", "start", "stop"))
def blocks(params, x, positions, layout, *, model, start, stop):
  """Blocks `start` to `stop` of a tower of Qwen2.5-VL over rows x [R, P, D], or over embedded patches."""

  def call(module):
    visual = module.visual
    rotation = rope.rotation(positions, rope.grid_frequencies(visual.config.hidden_size // visual.config.num_heads))
    out = x
    for block in visual.blocks[start:stop]:
      out = block(out, rotation, layout)
    return out, visual.merger(out)

  return model.apply({"params": params}, method=call)


class QwenTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    # A block with full attention, then one with windows and another with full attention.
    cls.model, cls.params = checks.load(qwen2_5_vl, "mqa")
    cls.inputs = cls.model.pack(**qwen2_5_vl.batch(PROMPTS))

  @parameterized.parameters("change", "lens", "change/restore", "lens/restore")
  def test_equals_all_tokens_under_masks(self, words):
    """Removed tokens are neither keys of a window nor members of a slice; the others are where they were."""
    model, params, inputs = self.model, self.params, self.inputs
    importance = checks.uneven_importance(model.config.text.num_attention_heads)
    plan, limits = staged_plan(model, inputs, f"tower@1:{SHARE}/{words}", importance)
    features = generation.encode_pictures(model, params, inputs, (), plan)

    vision = inputs.vision
    rows, width, unit = vision.patches.shape[:3]
    positions = vision.positions.reshape(rows, width * unit, 2)
    embed = lambda module: module.visual.patch_embed(vision.patches.reshape(rows, width * unit, -1))
    before = model.apply({"params": params}, method=embed)
    run = functools.partial(blocks, params, positions=positions, model=model)
    after, early_tokens = run(before, layout=vision.layout, start=0, stop=1)
    by_slot = lambda y: np.asarray(y).reshape(rows * width, unit, -1)
    if words.startswith("change"):
      scores = np.linalg.norm(by_slot(after) - by_slot(before), axis=-1).mean(axis=1)
    else:
      scores = self.numpy_lens(np.asarray(early_tokens), importance)
    kept, dropped = [], []
    for members in np.asarray(vision.slice_slots):
      members = members[members >= 0]
      if len(members):
        chosen = numpy_hawk.top_k(scores[members], numpy_hawk.count_to_keep(len(members), SHARE))
        kept.append(members[chosen])
        dropped.append(np.delete(members, chosen))
    some = np.concatenate(kept)
    slices = np.full_like(vision.slice_slots, -1)
    places = np.zeros(rows * width, np.int32)
    for number, members in enumerate(kept):
      slices[number, : len(members)] = members
      places[members] = number * slices.shape[1] + np.arange(len(members))
    windows = np.where(np.isin(np.arange(rows * width), some), vision.window_ids.reshape(-1), -1)
    layout = subset.Layout(slices, places.reshape(rows, width), windows.reshape(rows, width))
    last, expected = run(after, layout=layout, start=1, stop=3)
    expected = np.array(expected)
    if "restore" in words:
      self.assertIsNone(features.rows)
      self.assertIsNone(limits)
      states, early = by_slot(last).copy(), by_slot(after)
      for chosen, others in zip(kept, dropped):
        members = np.concatenate([chosen, others])
        states[members] = self.numpy_restored(early[members], states[chosen], len(chosen))
      merge = lambda module: module.visual.merger(jnp.asarray(states.reshape(after.shape)))
      expected = np.asarray(model.apply({"params": params}, method=merge))
      real = np.concatenate([*kept, *dropped])
      np.testing.assert_allclose(np.asarray(features.tokens)[real], expected[real], atol=1e-4)
      return
    found = np.asarray(features.rows)
    np.testing.assert_array_equal(np.flatnonzero(found >= 0), np.sort(some))
    np.testing.assert_allclose(np.asarray(features.tokens)[found[some]], expected[some], atol=1e-4)
    counts = [len(members) for members in kept]
    # Dense: at most a bucket's padding beside the tokens kept.
    self.assertLessEqual(len(features.tokens), 1.125 * sum(counts) + 2 * width)
    visual = np.asarray(inputs.prompt.visual_mask)
    left = (found[np.asarray(inputs.prompt.visual_slots)] >= 0) & visual
    np.testing.assert_array_equal(left.sum(axis=1), limits)

  def numpy_lens(self, tokens, importance):
    """[R * W] HAWK's scores of the tower's early tokens, in NumPy."""
    text, prompt = self.model.config.text, self.inputs.prompt
    layer = self.params["language_model"]["layers_0"]
    norm = lambda x: numpy_hawk.rms_norm(x, np.asarray(layer["input_layernorm"]["scale"]), text.rms_norm_eps)
    table = np.asarray(self.params["language_model"]["embed_tokens"]["embedding"])
    weight = lambda name, kind: np.asarray(layer["self_attn"][name][kind]).T
    scores = np.full(len(tokens), -np.inf)
    for number, slots in enumerate(np.asarray(prompt.visual_slots)):
      slots = slots[np.asarray(prompt.visual_mask)[number]]
      query = table[np.asarray(prompt.text_tokens)[number][np.asarray(prompt.query_mask)[number]]]
      raw = numpy_hawk.head_scores(
        norm(query),
        norm(tokens[slots]),
        weight("q_proj", "kernel"),
        weight("k_proj", "kernel"),
        weight("q_proj", "bias"),
        weight("k_proj", "bias"),
        text.num_attention_heads,
        text.num_key_value_heads,
        None,
        None,
        0.0,
      )
      scores[slots] = numpy_hawk.fuse(numpy_hawk.normalize(raw, "l2"), importance)
    return scores

  def numpy_restored(self, early, late, count):
    """`numpy_restore` of merged tokens [L, U, D], of which the first `count` were kept; their patches' mean is compared."""
    pooled = early.mean(axis=1)
    unit = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    out = np.concatenate([late, early[count:]])
    for token in range(count, len(early)):
      near = np.argsort(-(unit[:count] @ unit[token]), kind="stable")[: tower.NEIGHBORS]
      out[token] = early[token] + np.mean(late[near] - early[near], axis=0)
    return out

  def test_prompts_do_not_depend_on_each_other(self):
    stages_text = "tower@1:0.5/lens, input:0.3, decoder@1:0.1/text"
    answer = lambda names: generate(
      self.model, self.params, self.model.pack(**qwen2_5_vl.batch(names)), stages=stages_text, max_new_tokens=3
    )
    together = answer(PROMPTS)
    alone, number = answer(PROMPTS[1:2]), 1
    np.testing.assert_array_equal(together.tokens[number], alone.tokens[0])
    real = lambda row: np.asarray(row)[np.asarray(row) >= 0]
    np.testing.assert_array_equal(real(together.kept_positions[number]), real(alone.kept_positions[0]))

  def test_other_shares_and_pictures_compile_nothing(self):
    rng = np.random.default_rng(0)

    def answer(grid, share):
      tokens = [qwen2_5_vl.VISION_START] + [qwen2_5_vl.IMAGE] * (grid[1] * grid[2] // 4) + [qwen2_5_vl.VISION_END, 1, 2, 3]
      pixels = rng.standard_normal([grid[1] * grid[2], 1176], np.float32)
      inputs = self.model.pack(input_ids=[tokens], pixel_values=pixels, image_grid_thw=[grid])
      text = f"tower@1:{share}/lens, input:0.2, decoder@1:0.1"
      jax.block_until_ready(generate(self.model, self.params, inputs, stages=text, max_new_tokens=2))

    answer([1, 22, 24], 0.5)
    with compilations() as seen:
      answer([1, 24, 22], 0.5)
      answer([1, 22, 24], 0.49)
    self.assertEmpty(seen)


class KeepAllTest(parameterized.TestCase):
  @parameterized.parameters(
    (qwen2_5_vl, "mqa", ("ragged_6x50", "image_and_video"), "tower:1.0/lens, decoder@1:1.0/last"),
    (qwen3_vl, "gqa", ("two_images", "images_and_video"), "tower:1.0/change/restore, input:1.0, decoder@1:1.0/text"),
    (llava, "next", ("landscape",), "tower:1.0/change, input:1.0"),
  )
  def test_changes_no_token(self, reference, name, prompts, text):
    model, params = checks.load(reference, name)
    inputs = model.pack(**reference.batch(prompts))
    answer = lambda **settings: generate(model, params, inputs, max_new_tokens=4, **settings)
    whole = answer()
    out = answer(stages=text)
    np.testing.assert_array_equal(out.tokens, whole.tokens)
    kept = [np.asarray(each.kept_positions) for each in (out, whole)]
    for found, expected in zip(*kept):
      np.testing.assert_array_equal(found[found >= 0], expected[expected >= 0])


class TilesTest(parameterized.TestCase):
  @parameterized.parameters("change", "lens", "change/restore")
  def test_equals_each_tile_alone(self, words):
    """Blocks that run on the kept tokens of one tile at a time, without padding."""
    model, params = checks.load(llava, "mistral")  # three hidden states are features, one of them from before the stage
    inputs = model.pack(**llava.batch(("two", "one")))
    config = model.config.vision
    plan, _ = staged_plan(model, inputs, f"tower@2:{SHARE}/{words}")
    features = generation.encode_pictures(model, params, inputs, (), plan)
    tiles = len(inputs.vision)
    states = jax.jit(lambda vision: model.apply({"params": params}, method=lambda m: m.vision_tower.states(vision)))(
      inputs.vision
    )
    states = [np.asarray(state) for state in states]
    if words == "lens":
      scores = self.lens(model, params, inputs, states, plan)
    else:
      scores = np.linalg.norm(states[2] - states[1], axis=-1)[:, 1:].reshape(-1)
    count = numpy_hawk.count_to_keep(config.tokens, SHARE)
    later = jax.jit(
      lambda x: model.apply(
        {"params": params},
        method=lambda m: functools.reduce(lambda xs, b: [*xs, b(xs[-1])], m.vision_tower.encoder.layers[2:], [x]),
      )
    )
    project = lambda x: np.asarray(model.apply({"params": params}, method=lambda m: m.multi_modal_projector(jnp.asarray(x))))
    for tile in range(tiles):
      here = scores[tile * config.tokens : (tile + 1) * config.tokens]
      if not np.isfinite(here).any():
        continue  # a tile of padding
      kept = np.asarray(numpy_hawk.top_k(here, count))
      index = np.concatenate([[0], 1 + kept])
      ran = [np.asarray(x)[0, 1:] for x in later(states[2][tile : tile + 1, index])]
      everything = words.endswith("restore")
      chosen = []
      for layer in config.feature_layers:
        if layer < 2:
          chosen.append(states[layer][tile, 1:] if everything else states[layer][tile, index[1:]])
        else:
          early = states[2][tile, 1:]
          chosen.append(numpy_restore(early, ran[layer - 2], kept) if everything else ran[layer - 2])
      expected = project(np.concatenate(chosen, axis=-1)[None])[0]
      at = tile * config.tokens + (np.arange(config.tokens) if everything else kept)
      if not everything:
        np.testing.assert_array_equal(
          np.flatnonzero(np.asarray(features.rows)[tile * config.tokens : (tile + 1) * config.tokens] >= 0), kept
        )
        at = np.asarray(features.rows)[at]
      np.testing.assert_allclose(np.asarray(features.tokens)[at], expected, atol=1e-4)

  def lens(self, model, params, inputs, states, plan):
    config = model.config.vision
    ended = np.concatenate([states[min(layer, 2)] for layer in config.feature_layers], axis=-1)[:, 1:]

    def look(module):
      tokens = module.multi_modal_projector(jnp.asarray(ended)).reshape(-1, model.config.text.hidden_size)
      return module.fused_scores(inputs.prompt, module.as_features(tokens), plan.plan)

    fused = np.asarray(jax.jit(lambda: model.apply({"params": params}, method=look))())
    scores = np.full(len(states[0]) * config.tokens, -np.inf)
    mask = np.asarray(inputs.prompt.visual_mask)
    scores[np.asarray(inputs.prompt.visual_slots)[mask]] = fused[mask]
    return scores


class BadInputTest(absltest.TestCase):
  def test_messages(self):
    model, params = checks.load(qwen2_5_vl, "gqa")
    inputs = model.pack(**qwen2_5_vl.batch(("square",)))

    def fails(message, **settings):
      with self.assertRaisesRegex(ValueError, message):
        generate(model, params, inputs, max_new_tokens=1, **settings)

    fails("layer of tower@3:0.5: got 3, must be a whole number from 1 to 2", stages="tower@3:0.5")
    fails("layer of decoder@2:0.5: got 2, must be a whole number from 1 to 1", stages="decoder@2:0.5")
    fails("score of tower@1:0.5/text: got 'text', allowed are lens, change", stages="tower@1:0.5/text")
    fails("score of decoder@1:0.5/lens: got 'lens', allowed are text, last, change, layer", stages="decoder@1:0.5/lens")
    features = generation.encode_pictures(model, params, inputs)
    fails("must be encoded with the tower stage of the same stages", stages="tower@2:0.5", features=features)
    with self.assertRaisesRegex(ValueError, "LlavaOnevision has no stage in its vision tower"):
      other = checks.load(llava_onevision, "tied")[0]
      stages.resolve(pruning.Pruning(stages="tower:0.5"), other)
    found = stages.resolve(pruning.Pruning(stages="tower:0.5, decoder:0.2"), model)
    self.assertEqual(str(found), "tower@2:0.5/lens, decoder@1:0.2/text")


if __name__ == "__main__":
  absltest.main()
