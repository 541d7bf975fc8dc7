"""Pruning of LLaVA against docs/method.md in NumPy, and the compacted cache against no cache at all."""

from absl.testing import absltest
from absl.testing import parameterized

from tests.reference import checks
from tests.reference import llava as reference

NEW_TOKENS = 12
# Several pictures, no picture, and no text after the picture; of LLaVA-NeXT, tiles of all counts and newlines among them.
PROMPTS = {
  "llama": ("two", "text_only", "one", "no_instruction"),
  "mistral": ("two", "text_only", "adjacent"),
  "qwen2": ("one", "two"),
  "next": ("two_tilings", "landscape", "text_only", "square", "next_no_instruction"),
}


class PruningTest(parameterized.TestCase):
  def check(self, config_name, normalization="l2", importance_rows=None, **keep):
    model, params = checks.load(reference, config_name)
    importance = checks.uneven_importance(model.config.text.num_attention_heads, importance_rows)
    checks.check_pruning(
      model,
      params,
      reference.batch(PROMPTS[config_name]),
      importance,
      normalization,
      NEW_TOKENS,
      dict(visual_ids=(reference.IMAGE,)),
      **keep,
    )

  @parameterized.product(config_name=("llama", "next"), keep_ratio=(0.4, 0.198, 0.1))
  def test_ratios(self, config_name, keep_ratio):
    self.check(config_name, keep_ratio=keep_ratio)

  @parameterized.parameters("softmax", "minmax", "none")
  def test_normalizations(self, normalization):
    self.check("next", normalization, keep_ratio=0.198)

  @parameterized.parameters("mistral", "qwen2")
  def test_other_decoders(self, config_name):
    self.check(config_name, keep_ratio=0.198)

  def test_a_count_and_an_importance_of_each_row(self):
    self.check("llama", importance_rows=len(PROMPTS["llama"]), keep_count=40)


if __name__ == "__main__":
  absltest.main()
