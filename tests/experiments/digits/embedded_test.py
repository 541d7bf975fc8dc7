"""The committed models really answer, and training sees what their processors make.

The full figures are those of `experiments.accuracy`; these tests keep them from rotting.
"""

import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from experiments.digits import embedded
from experiments.digits import task
from models import generate
from models import generation
from models import load_model
from models import load_processor
from models import registry

QUESTIONS, BATCH = 80, 40


class Embedded:
  """Tests of one architecture."""

  name: str

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.directory = embedded.DIRECTORY / cls.name
    cls.model, cls.params = load_model(str(cls.directory))
    cls.processor = load_processor(str(cls.directory))
    cls.batches = []
    examples = task.dataset("test", QUESTIONS, seed=1)
    for start in range(0, QUESTIONS, BATCH):
      pictures, questions = zip(*examples[start : start + BATCH])
      texts = [question.text for question in questions]
      inputs = cls.model.pack(**cls.processor(images=[[picture] for picture in pictures], prompts=texts))
      blind = cls.model.pack(**cls.processor(prompts=texts))
      cls.batches.append((inputs, blind, [question.answer for question in questions]))
    cls.features = [generation.encode_pictures(cls.model, cls.params, inputs) for inputs, _, _ in cls.batches]

  def accuracy(self, with_picture=True, **arguments):
    right = []
    for number, ((inputs, blind, answers), features) in enumerate(zip(self.batches, self.features)):
      if with_picture:
        arguments["features"] = features
      seeds = np.arange(BATCH) + BATCH * number
      out = generate(
        self.model,
        self.params,
        inputs if with_picture else blind,
        max_new_tokens=4,
        selector_seed=seeds,
        eos_token_ids=self.processor.eos_token_ids,
        **arguments,
      )
      right += [text == answer for text, answer in zip(self.processor.decode(out.tokens, out.lengths), answers)]
    return np.mean(right)

  def test_answers_need_the_picture(self):
    self.assertGreater(self.accuracy(), 0.88)
    self.assertLess(self.accuracy(with_picture=False), 0.35)

  def test_the_question_guides_pruning(self):
    self.assertGreater(self.accuracy(keep_ratio=0.2), self.accuracy(keep_ratio=0.2, selector="random") + 0.1)

  def test_size(self):
    self.assertLess(sum(path.stat().st_size for path in self.directory.iterdir()), 8_000_000)
    self.assertGreaterEqual(self.model.config.text.num_attention_heads, 8)


class QwenTest(Embedded, absltest.TestCase):
  name = "qwen2_5_vl"


class LlavaTest(Embedded, absltest.TestCase):
  name = "llava"


class StudentTest(parameterized.TestCase):
  @parameterized.parameters(*embedded.ARCHITECTURES)
  def test_training_sees_what_the_processor_makes(self, name):
    student, (picture, _) = embedded.make_student(name), task.demo_picture()
    with tempfile.TemporaryDirectory() as directory:
      embedded.write_assets(pathlib.Path(directory), student)
      batch = load_processor(directory)(images=[[picture]], prompts=["Is it red?"])
    question = student.tokenizer.encode("Is it red?" + student.after).ids
    self.assertEqual(student.before + question, batch["input_ids"][0].tolist())
    for argument, values in student.architecture.pixels(picture[None]).items():
      np.testing.assert_allclose(values, batch[argument], atol=1e-6)

  @parameterized.parameters(*embedded.ARCHITECTURES)
  def test_other_numbers_of_heads(self, name):
    with tempfile.TemporaryDirectory() as directory:
      student = embedded.make_student(name, heads=16)
      embedded.write_assets(pathlib.Path(directory), student)
      _, model = registry.describe(directory)
    text = model.config.text
    self.assertEqual(model.config, student.model.config)
    self.assertEqual((text.num_attention_heads, text.num_key_value_heads, text.head_dim), (16, 8, 8))
    self.assertIn(sum(text.mrope_section), (0, 4))
    for heads in (3, 0, 64):
      with self.assertRaisesRegex(ValueError, f"heads: got {heads}, must be even and divide"):
        embedded.make_student(name, heads=heads)

  @parameterized.parameters(*embedded.ARCHITECTURES)
  def test_committed_files_are_those_of_the_architecture(self, name):
    with tempfile.TemporaryDirectory() as directory:
      embedded.write_assets(pathlib.Path(directory), embedded.make_student(name))
      for path in pathlib.Path(directory).iterdir():
        self.assertEqual(path.read_text(), (embedded.DIRECTORY / name / path.name).read_text(), path.name)


if __name__ == "__main__":
  absltest.main()
