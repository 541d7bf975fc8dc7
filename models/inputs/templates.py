"""Chat templates: programs that a checkpoint brings along, run without trust in them.

transformers runs them in Jinja's sandbox, which keeps them from files and from Python's internals. Here they also get a time
limit, and what goes wrong in them becomes one error that names the template.
"""

from __future__ import annotations

from collections.abc import Sequence
import contextlib
import pathlib
import sys
import time
from typing import Any

import jinja2

from hawk_jax import checks
from models import foreign
from models.checkpoints import directory as directory_lib

_PARTS = ("text", "image", "video")
# Powers and large numbers have no place in a template: a few of them fill the memory in one step, which no time limit stops.
_LARGEST_NUMBER = 100_000


class _TooSlowError(Exception):
  """The time limit is over."""


def load(directory: pathlib.Path, tokenizer) -> str:
  """The vision model's own template if there is one, else the tokenizer's. A short chat is written with it.

  Raises:
    ValueError: there is none, or it is broken.
  """
  if (directory / "chat_template.jinja").is_file():
    name = "chat_template.jinja"
    template = directory_lib.read_text(directory / name)
  elif (directory / "chat_template.json").is_file():
    name = "chat_template.json"
    template = directory_lib.read_json(directory / name).get("chat_template")
  else:
    name, template = "tokenizer_config.json", tokenizer.chat_template
    if not template:
      raise ValueError(f"model: {directory} has no chat template")
  if not isinstance(template, str):
    raise ValueError(f"model: {directory / name}: chat_template: got {checks.show(template)}, must be text")
  try:
    check_source(template)
    render(tokenizer, template, user_message(0, 0, "?"))
  except (ValueError, jinja2.TemplateError) as error:
    raise ValueError(f"model: {directory / name} is not a usable chat template ({foreign.reason(error)})") from error
  return template


def user_message(pictures: int, videos: int, text: str) -> list[dict]:
  """A chat of one message: pictures, videos, text."""
  content = [{"type": "image"}] * pictures + [{"type": "video"}] * videos + [{"type": "text", "text": text}]
  return [{"role": "user", "content": content}]


def check(name: str, chat: Any) -> None:
  """Refuses what is not a chat.

  Args:
    name: what to call it in messages.
    chat: a list of messages, each with a role and a content, which is text or a list of texts, pictures and videos.

  Raises:
    ValueError: what is wrong, and where.
  """
  if not _is_list(chat) or not chat:
    raise ValueError(f"{name}: got {checks.show(chat)}, must be a list of messages")
  for message in chat:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
      raise ValueError(f"{name}: got the message {checks.show(message)}, must have a role and a content")
    content = message.get("content")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not _is_list(parts) or not all(isinstance(part, dict) and part.get("type") in _PARTS for part in parts):
      raise ValueError(
        f"{name}: got the content {checks.show(content)}, must be text or a list of parts with the types {', '.join(_PARTS)}"
      )
    for part in parts:
      if part["type"] == "text":
        check_text(name, part.get("text"))


def check_text(name: str, text: Any) -> None:
  """Refuses what cannot be written as Unicode.

  Raises:
    ValueError: no text, or half of a surrogate pair in it.
  """
  if not isinstance(text, str):
    raise ValueError(f"{name}: got {checks.show(text)}, must be text")
  try:
    text.encode()
  except UnicodeEncodeError as error:
    raise ValueError(f"{name}: got {checks.show(text)}, must be Unicode text ({error.reason})") from error


def check_source(template: str) -> None:
  """Refuses numbers that have no place in a template.

  Raises:
    ValueError: for such a number.
    jinja2.TemplateError: no template at all.
  """
  for line, kind, token in jinja2.Environment().lex(template):
    if (kind, token) == ("operator", "**") or kind == "integer" and int(token.replace("_", ""), 0) > _LARGEST_NUMBER:
      raise ValueError(f"line {line} has {token}; numbers may be at most {_LARGEST_NUMBER:,}, without powers")


def render(tokenizer, template: str, chat: Sequence[dict], seconds: float = 10.0) -> str:
  """A chat as text, up to where the answer begins.

  Args:
    tokenizer: transformers' tokenizer.
    template: Jinja source.
    chat: messages that `check` passes.
    seconds: that the template may take.

  Raises:
    ValueError: the template fails, does what the sandbox forbids, or takes too long.
  """
  try:
    with _time_limit(seconds):
      text = tokenizer.apply_chat_template(chat, chat_template=template, tokenize=False, add_generation_prompt=True)
  except _TooSlowError as error:
    raise ValueError(f"the chat template takes longer than {seconds:g} seconds, it may loop for ever") from error
  except (jinja2.TemplateError, *foreign.ERRORS) as error:
    raise ValueError(f"the chat template fails ({foreign.reason(error)})") from error
  check_text("the chat template", text)
  return text


def _is_list(value) -> bool:
  return isinstance(value, (list, tuple))


@contextlib.contextmanager
def _time_limit(seconds: float):
  """Raises _TooSlowError in Python code that runs longer, in any thread: at every line, Python calls a trace function."""
  end = time.monotonic() + seconds

  def trace(frame, event, argument):
    del frame, event, argument
    if time.monotonic() > end:
      raise _TooSlowError
    return trace

  before = sys.gettrace()
  sys.settrace(trace)
  try:
    yield
  finally:
    sys.settrace(before)
