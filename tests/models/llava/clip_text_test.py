"""CDPruner on LLaVA-1.5: relevance against transformers' CLIP (recorded by make_clip_goldens.py), and the selection."""

import functools
import json
import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np

from models import generate
from models.llava import clip_text
from models.qwen2_5_vl import config as qwen_config
from models.qwen2_5_vl.model import Qwen2_5_VL
from tests.reference import checks
from tests.reference import clip as reference
from tests.reference import llava
from tests.reference import qwen2_5_vl

QUESTIONS = ("what digit is red", "count", "which one stands beside the other", "boxed")
TOLERANCE = 1e-5
KEEP = 11


@functools.cache
def load(config_name="named"):
  with tempfile.TemporaryDirectory() as directory:
    reference.write_checkpoint(directory, config_name)
    return clip_text.load(directory)


def plain_dpp(features, cosines, count):
  """CDPruner's kernel, a determinant for every token that a pick might be."""
  unit = features / np.linalg.norm(features, axis=-1, keepdims=True)
  relevance = (cosines.max() - cosines) / (cosines.max() - cosines.min())
  kernel = relevance[:, None] * (unit @ unit.T) * relevance
  picks = []
  while len(picks) < count:
    values = [
      -np.inf if token in picks else np.linalg.slogdet(kernel[np.ix_(picks + [token], picks + [token])])[1]
      for token in range(len(features))
    ]
    picks.append(int(np.argmax(values)))
  return sorted(picks)


class CDPrunerTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.model, cls.params = checks.load(llava, reference.LLAVA)
    cls.arrays = llava.batch(reference.CASES)
    cls.inputs = cls.model.pack(**cls.arrays)
    cls.goldens, _ = checks.goldens(reference)

  def scores(self, inputs=None, questions=QUESTIONS, model=None):
    return load().relevance(model or self.model, self.params, inputs or self.inputs, list(questions))

  @parameterized.parameters(*reference.CONFIGS)
  def test_equals_transformers(self, config_name):
    scorer, prompt = load(config_name), self.inputs.prompt
    tokens = reference.tokens(config_name)
    fingerprint = self.goldens[f"{config_name}/fingerprint"]
    np.testing.assert_allclose(reference.fingerprint(config_name), fingerprint, rtol=1e-5)
    texts = jax.jit(lambda params, tokens: scorer.clip.apply({"params": params}, tokens))(scorer.params, tokens)
    np.testing.assert_allclose(texts, self.goldens[f"{config_name}/texts"], atol=TOLERANCE)
    found = clip_text.negated_cosines(
      self.params, scorer.params, self.inputs.vision, prompt.visual_slots, tokens, model=self.model, clip=scorer.clip
    )
    cosines = self.goldens[f"{config_name}/cosines"]
    for row, slots, mask, expected in zip(np.asarray(found), prompt.visual_slots, prompt.visual_mask, cosines):
      np.testing.assert_allclose(row[mask], -expected[slots[mask]], atol=TOLERANCE)

  def test_whole_selection_equals_plain_reading(self):
    scores, prompt = self.scores(), self.inputs.prompt
    out = generate(
      self.model, self.params, self.inputs, selector="cdpruner", scores=scores, keep_count=KEEP, max_new_tokens=1
    )
    for number, row in enumerate(checks.merged(self.model, self.params, self.arrays)):
      visual = np.flatnonzero(row.ids == llava.IMAGE)
      cosines = -scores[number, prompt.visual_mask[number]].astype(np.float64)
      kept = visual[plain_dpp(row.embeddings[visual].astype(np.float64), cosines, KEEP)] if visual.size else visual
      found = np.asarray(out.kept_positions[number])
      dropped = np.setdiff1d(visual, kept)
      np.testing.assert_array_equal(found[found >= 0], np.setdiff1d(np.arange(len(row.ids)), dropped))

  def test_row_equals_itself_alone(self):
    together = self.scores()
    for number, name in enumerate(reference.CASES):
      inputs = self.model.pack(**llava.case(name))
      alone = self.scores(inputs, QUESTIONS[number : number + 1])[0, inputs.prompt.visual_mask[0]]
      np.testing.assert_allclose(alone, together[number, self.inputs.prompt.visual_mask[number]], atol=1e-6)

  def test_scores_of_the_caller_replace_hawks(self):
    wanted = np.random.default_rng(0).standard_normal(self.inputs.prompt.visual_order.shape)
    out = generate(self.model, self.params, self.inputs, scores=wanted, keep_count=KEEP, max_new_tokens=1)
    for values, order, kept in zip(wanted, self.inputs.prompt.visual_order, np.asarray(out.kept_positions)):
      places = np.flatnonzero(order >= 0)
      best = places[np.argsort(-values[places])[:KEEP]]
      np.testing.assert_array_equal(np.intersect1d(kept, order[places]), np.sort(order[best]))

  def test_questions_to_tokens(self):
    short, long = load().tokens(["Ab", "z" * 200])
    letter = lambda character: 1 + ord(character) - ord("a")
    end = reference.END
    np.testing.assert_array_equal(short, [0, letter("a"), 26 + letter("b")] + [end] * (reference.SLOTS - 3))
    np.testing.assert_array_equal(long, [0] + [letter("z")] * (reference.SLOTS - 2) + [end])

  @parameterized.named_parameters(
    ("none", {}, "scores: the selector 'cdpruner' needs them"),
    ("shape", dict(scores=np.zeros([4, 3])), r"scores: got float64 of shape \(4, 3\), must be finite numbers \[4, "),
    ("fastv", dict(scores=np.zeros(1), selector="fastv", prune_layer=1), "scores: fastv uses scores of its own"),
  )
  def test_bad_scores(self, arguments, message):
    with self.assertRaisesRegex(ValueError, message):
      generate(self.model, self.params, self.inputs, **{"selector": "cdpruner", "keep_count": KEEP, **arguments})

  def test_scores_that_are_not_finite(self):
    scores = self.scores()
    scores = np.where(np.arange(scores.shape[1]) == 3, np.nan, scores)
    with self.assertRaisesRegex(ValueError, "must be finite numbers"):
      generate(self.model, self.params, self.inputs, selector="cdpruner", scores=scores, keep_count=KEEP)

  def test_models_that_do_not_fit(self):
    tiny = lambda name: checks.load(llava, name)[0]
    for model, message in (
      (tiny("next"), "LLaVA-1.5 only, the model is LlavaNext"),
      (Qwen2_5_VL(qwen_config.from_hf(qwen2_5_vl.CONFIGS["gqa"])), "the model is Qwen2_5_VL"),
      (tiny("mistral"), "clip: its vision tower is .*hidden_size=40.*hidden_size=48"),
    ):
      with self.assertRaisesRegex(ValueError, message):
        self.scores(model=model)
    with self.assertRaisesRegex(ValueError, r"questions: got \['one'\], must be a list of 4"):
      self.scores(questions=["one"])

  def test_checkpoints_that_do_not_fit(self):
    with self.assertRaisesRegex(ValueError, "clip: /no/such/place: there is no directory"):
      clip_text.load("/no/such/place")
    with tempfile.TemporaryDirectory() as directory:
      reference.write_checkpoint(directory, "named")
      path = pathlib.Path(directory) / "config.json"
      config = json.loads(path.read_text())
      text = lambda **change: {"text_config": {**config["text_config"], **change}}
      for change, message in (
        ({"model_type": "siglip"}, "model_type is 'siglip', supported is 'clip'"),
        ({"projection_dim": 25}, r"wrong shape: text_projection.weight is \[24, 40\]"),
        (text(num_hidden_layers=1), "unexpected: text_model"),
        (text(hidden_act="gelu"), "text_config.hidden_act"),
      ):
        path.write_text(json.dumps({**config, **change}))
        with self.assertRaisesRegex(ValueError, f"clip: (.|\n)*{message}"):
          clip_text.load(directory)


if __name__ == "__main__":
  absltest.main()
