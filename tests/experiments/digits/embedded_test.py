"""The committed models really answer. The full figures are `experiments.accuracy`'s; this keeps them from rotting."""

from absl.testing import absltest
import numpy as np

from experiments import digits
from experiments import embedded
from models import generate
from models import load_model
from models import load_processor

QUESTIONS = 200


class Embedded:
  """Tests of one architecture."""

  name: str

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.directory = embedded.DIRECTORY / cls.name
    cls.model, cls.params = load_model(str(cls.directory))
    cls.processor = load_processor(str(cls.directory))
    cls.examples = digits.dataset("test", QUESTIONS, seed=1)

  def accuracy(self, with_picture=True, **arguments):
    right = []
    for start in range(0, QUESTIONS, 40):
      chosen = self.examples[start:start + 40]
      images = [[picture] for picture, _ in chosen] if with_picture else None
      inputs = self.model.pack(**self.processor(images=images, prompts=[question.text for _, question in chosen]))
      out = generate(self.model, self.params, inputs, max_new_tokens=4, eos_token_ids=self.processor.eos_token_ids,
                     selector_seed=np.arange(start, start + len(chosen)), **arguments)
      texts = self.processor.decode(out.tokens, out.lengths)
      right += [text == question.answer for text, (_, question) in zip(texts, chosen)]
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


if __name__ == "__main__":
  absltest.main()
