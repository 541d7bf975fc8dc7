"""What training computes: answers from a shared cache, and losses that are small where the model does as it is asked."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from experiments.digits import batches
from experiments.digits import embedded
from experiments.digits import losses
from experiments.digits import task
from models import generate
from models import load_model

QUESTIONS = 4


class ForwardTest(parameterized.TestCase):
  @parameterized.parameters(*embedded.ARCHITECTURES)
  def test_questions_that_share_a_cache_are_answered_as_if_each_were_alone(self, name):
    student = embedded.make_student(name)
    model, params = load_model(str(embedded.DIRECTORY / name))
    batch = batches.make_batch(student, np.random.default_rng(3), "test", 1, QUESTIONS)
    outputs = jax.jit(losses.forward, static_argnames="model")(params, batch, model=model)
    self.assertGreaterEqual(np.mean(losses.right(outputs, batch)), 0.75)  # the committed models do answer

    rng = np.random.default_rng(3)
    scene = task.make_scene(rng, "test")
    task.questions(scene, rng)
    pixels = student.architecture.pixels(np.stack([task.render(scene, rng)] * QUESTIONS))
    lengths = batch.target_index[0, :, :1]
    mask = np.arange(batches.QUESTION_LENGTH) <= lengths
    before = np.tile(student.before, (QUESTIONS, 1))
    inputs = model.pack(
      input_ids=np.concatenate([before, batch.tokens[0]], axis=1),
      attention_mask=np.concatenate([np.ones_like(before), mask], axis=1),
      **pixels,
    )
    alone = generate(model, params, inputs, max_new_tokens=2, return_logits=True)
    np.testing.assert_allclose(outputs.logits[0, :, 0], alone.logits[:, 0], atol=1e-3)
    right = np.asarray(alone.tokens[:, 0] == batch.targets[0, :, 0])
    np.testing.assert_allclose(outputs.logits[0, right, 1], alone.logits[right, 1], atol=1e-3)
    last = np.take_along_axis(outputs.early[0], batch.target_index[0, :, :1, None], axis=1)[:, 0]
    np.testing.assert_allclose(last, outputs.logits[0, :, 0], atol=1e-4)

    # What a question is about, hidden from this question alone.
    seen = np.ones(batch.about.shape, bool)
    seen[0, 0] = batch.about[0, 0] == 0
    hidden = jax.jit(losses.forward, static_argnames="model")(params, batch.replace(seen=seen), model=model)
    np.testing.assert_allclose(hidden.logits[0, 1:], outputs.logits[0, 1:], atol=1e-5)
    self.assertGreater(np.abs(hidden.logits[0, 0] - outputs.logits[0, 0]).max(), 1)


class ReadingTest(parameterized.TestCase):
  @parameterized.parameters(*embedded.ARCHITECTURES)
  def test_the_probes_of_a_batch_see_the_visual_tokens_alone(self, name):
    model, params = load_model(str(embedded.DIRECTORY / name))
    batch = batches.make_batch(embedded.make_student(name), np.random.default_rng(0), "test", 2, 3)
    rng = np.random.default_rng(1)
    probes = {
      name: jnp.asarray(rng.standard_normal(probe.shape, np.float32))
      for name, probe in losses.make_probes(("cells", "left"), model.config.text.hidden_size).items()
    }
    outputs = losses.forward(params, batch, model=model)
    loss, terms = losses.reading({"model": params, "probes": probes}, batch, model=model)
    self.assertEqual([*terms], ["cells", "left"])
    np.testing.assert_allclose(terms["cells"], losses.cells(outputs, batch, probes["cells"]), rtol=1e-5)
    shown = losses.left(outputs.replace(middle=outputs.visual), batch, probes["left"])
    np.testing.assert_allclose(terms["left"], shown, rtol=1e-5)
    np.testing.assert_allclose(loss, sum(terms.values()), rtol=1e-6)


class LossesTest(absltest.TestCase):
  """Outputs are made up: what the model is asked for, and then something else."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    student = embedded.make_student("qwen2_5_vl")
    batch = batches.make_batch(student, np.random.default_rng(0), "test", 2, 3)
    cls.batch = batches.drop_tokens(batch, np.random.default_rng(2))
    heads, sharing, size = 8, 2, sum(batches.CELL_CLASSES)
    one_hot = lambda labels, classes: np.concatenate(
      [np.eye(count)[labels[..., number]] for number, count in enumerate(classes)], axis=-1
    )
    pointing = np.repeat(100.0 * (batch.about > 0)[:, :, None], heads, axis=2)
    grey = batch.cells[:, None, None, :, 1] == batches.GREY
    scores = np.where(np.arange(heads)[:, None] < heads // 2, pointing, 100.0 * grey)
    cls.outputs = losses.Outputs(
      logits=jnp.asarray(100.0 * np.eye(student.tokenizer.get_vocab_size())[batch.targets]),
      early=jnp.asarray(
        100.0
        * np.eye(student.tokenizer.get_vocab_size())[np.repeat(batch.targets[..., :1], batches.QUESTION_LENGTH, axis=2)]
      ),
      visual=jnp.asarray(100.0 * one_hot(batch.cells, batches.CELL_CLASSES)),
      middle=jnp.asarray(100.0 * one_hot(batch.left, batches.LEFT_CLASSES)),
      pointing=jnp.asarray(pointing[:, :, :sharing]),
      scores=jnp.asarray(scores),
    )
    cls.probes = {"cells": jnp.eye(size), "left": jnp.eye(sum(batches.LEFT_CLASSES))}

  def loss(self, name, outputs=None, batch=None):
    probe = [self.probes[name]] if name in self.probes else []
    return float(losses.AUXILIARY[name](outputs or self.outputs, batch or self.batch, *probe))

  def test_answers(self):
    self.assertAlmostEqual(float(losses.answers(self.outputs, self.batch)), 0, places=4)
    self.assertTrue(losses.right(self.outputs, self.batch).all())
    wrong = self.outputs.replace(logits=jnp.roll(self.outputs.logits, 1, axis=-1))
    self.assertGreater(float(losses.answers(wrong, self.batch)), 50)
    self.assertFalse(losses.right(wrong, self.batch).any())

  def test_every_token_of_the_question_shows_the_answer(self):
    self.assertAlmostEqual(self.loss("early"), 0, places=4)
    last = int(self.batch.target_index[0, 0, 0])
    for place, wrong in ((0, True), (last - 1, True), (last, False)):
      early = self.outputs.early.at[0, 0, place].set(jnp.roll(self.outputs.early[0, 0, place], 1))
      self.assertEqual(self.loss("early", self.outputs.replace(early=early)) > 0.1, wrong)

  def test_probes(self):
    for name, tokens in (("cells", "visual"), ("left", "middle")):
      self.assertAlmostEqual(self.loss(name), 0, places=4)
      moved = jnp.roll(getattr(self.outputs, tokens), 1, axis=1)
      self.assertGreater(self.loss(name, self.outputs.replace(**{tokens: moved})), 10)

  def test_pointing_is_least_at_the_cells_asked_for(self):
    entropy = np.mean(np.log((self.batch.about > 0).sum(-1)))
    self.assertAlmostEqual(self.loss("point_middle"), entropy, places=4)
    wrong = self.outputs.replace(pointing=jnp.roll(self.outputs.pointing, 1, axis=-1))
    self.assertGreater(self.loss("point_middle", wrong), 10)

  def test_first_layer_points_at_the_question_and_at_grey_digits(self):
    seen = (self.batch.cells[..., 1] == batches.GREY) & self.batch.inputs.prompt.visual_mask
    entropy = np.mean(np.log((self.batch.about > 0).sum(-1))) + np.mean(np.log(seen.sum(-1)))
    self.assertAlmostEqual(self.loss("point_first"), entropy, places=4)
    for heads, matters in (((0, 1), True), ((2, 3), False), ((4, 5, 6, 7), True)):
      scores = self.outputs.scores.at[:, :, heads, :].set(0.0)
      self.assertEqual(self.loss("point_first", self.outputs.replace(scores=scores)) > entropy + 0.1, matters, heads)

  def test_removed_tokens_are_not_looked_at(self):
    removed = ~self.batch.inputs.prompt.visual_mask[:, None, None]
    self.assertTrue(removed.any())
    for name, field in (("point_middle", "pointing"), ("point_first", "scores")):
      outputs = self.outputs.replace(**{field: jnp.where(removed, 1000.0, getattr(self.outputs, field))})
      self.assertEqual(self.loss(name, outputs), self.loss(name))

  def test_probes_start_at_zero(self):
    probes = losses.make_probes(("cells", "left"), 16)
    self.assertEqual({name: probe.shape for name, probe in probes.items()}, {"cells": (16, 23), "left": (16, 21)})
    self.assertFalse(any(probe.any() for probe in probes.values()))


if __name__ == "__main__":
  absltest.main()
