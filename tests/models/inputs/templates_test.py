"""Chat templates that are broken or hostile."""

import json
import pathlib
import tempfile
import time

from absl.testing import absltest
from absl.testing import parameterized

from models.checkpoints import tokenizer as tokenizer_lib
from models.inputs import templates

EMBEDDED = pathlib.Path(__file__).parents[3] / "experiments" / "embedded_models" / "qwen2_5_vl"


class TemplatesTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.tokenizer = tokenizer_lib.load(EMBEDDED)

  def setUp(self):
    super().setUp()
    self.directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

  def load(self, source):
    (self.directory / "chat_template.jinja").write_text(source)
    return templates.load(self.directory, self.tokenizer)

  @parameterized.named_parameters(
    ("syntax", "{% for", "TemplateSyntaxError"),
    ("undefined", "{{ a.b.c }}", "UndefinedError: 'a' is undefined"),
    ("internals", "{{ ''.__class__.__mro__ }}", "SecurityError: access to attribute '__class__'"),
    ("change", "{{ messages.append(1) }}", "SecurityError"),
    ("recursion", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "RecursionError"),
    ("arithmetic", "{{ 1 / 0 }}", "ZeroDivisionError"),
    ("types", "{{ 1 + 'a' }}", "TypeError"),
    ("files", "{% include '/etc/passwd' %}", "TypeError: no loader"),
    ("blocks", "{% if 1 %}" * 200 + "{% endif %}" * 200, "Error: too many"),
    ("its_own", "{{ raise_exception('roles must alternate') }}", "TemplateError: roles must alternate"),
    ("memory", "{{ 'a' * 10000000000 }}", "line 1 has 10000000000; numbers may be at most 100,000"),
    ("power", "a\n{{ 9 ** 9 ** 9 }}", r"line 2 has \*\*; numbers may be at most 100,000, without powers"),
  )
  def test_broken(self, source, message):
    with self.assertRaisesRegex(ValueError, f"model: .*/chat_template.jinja is not a usable chat template .*{message}"):
      self.load(source)

  def test_numbers_in_its_text_do_not_matter(self):
    source = "Write **bold**, up to 1000000 words. {# 2 ** 9 #}"
    self.assertEqual(self.load(source), source)

  def test_one_that_never_ends_is_stopped(self):
    loops = "{% for a in range(100000) %}" * 3 + "{% endfor %}" * 3
    began = time.monotonic()
    with self.assertRaisesRegex(ValueError, "the chat template takes longer than 0.2 seconds, it may loop for ever"):
      templates.render(self.tokenizer, loops, templates.user_message(0, 0, "?"), seconds=0.2)
    self.assertLess(time.monotonic() - began, 10)

  def test_files_of_the_wrong_form(self):
    (self.directory / "chat_template.json").write_text(json.dumps({"chat_template": ["a"]}))
    with self.assertRaisesRegex(ValueError, r"chat_template.json: chat_template: got \['a'\], must be text"):
      templates.load(self.directory, self.tokenizer)
    (self.directory / "chat_template.json").write_text("[1]")
    with self.assertRaisesRegex(ValueError, r"chat_template.json must hold a JSON object, got \[1\]"):
      templates.load(self.directory, self.tokenizer)
    (self.directory / "chat_template.jinja").write_bytes(b"\xff")
    with self.assertRaisesRegex(ValueError, "chat_template.jinja is not text"):
      templates.load(self.directory, self.tokenizer)

  def test_what_it_writes_must_be_unicode(self):
    (self.directory / "chat_template.json").write_text(json.dumps({"chat_template": "\ud800"}))
    with self.assertRaisesRegex(ValueError, "chat_template.json is not a usable .*must be Unicode text"):
      templates.load(self.directory, self.tokenizer)


if __name__ == "__main__":
  absltest.main()
