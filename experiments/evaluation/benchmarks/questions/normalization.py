"""Answers as the official evaluation of VQA compares them: without punctuation and articles, numbers as digits, contractions
spelled in one way.
"""

from __future__ import annotations

import re

_ARTICLES = ("a", "an", "the")
_NUMBERS = {
  "none": "0",
  **{word: str(number) for number, word in enumerate("zero one two three four five six seven eight nine ten".split())},
}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_PERIOD_OUTSIDE_NUMBER = re.compile(r"(?<!\d)\.(?!\d)")
_MOST_PERIODS = int(re.UNICODE)  # the official code passes this flag as the count, so it drops at most 32

# Contractions that are spelled without one or all of their apostrophes get them back.
_WHOLE = """ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's
isn't it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've
shouldn't somebody'll somebody's someone'd someone'll someone's something'd something'll that's there'd
there're there's they'd they'll they're they've 'twas wasn't we've weren't what'll what're what's what've
when's where'd where's where've who'd who'll who's who've why'll why're why's won't would've wouldn't y'all
you'd you'll you're you've""".split()
_DOUBLE = """couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've
something'd've there'd've they'd've we'd've who'd've wouldn't've y'all'll y'all'd've you'd've""".split()
_ODD = {"somebody'd": "somebodyd", "ow's'at": "'ow's'at", "'ows'at": "'ow's'at", "'ow'sat": "'ow's'at"}


def _without_one(word: str) -> list[str]:
  return [word[:at] + word[at + 1 :] for at, letter in enumerate(word) if letter == "'"]


_CONTRACTIONS = {
  **{word.replace("'", ""): word for word in _WHOLE},
  **{spelt: word for word in _DOUBLE for spelt in _without_one(word)},
  **_ODD,
}


def vqa(answer: str) -> str:
  """The form of an answer in which answers are compared."""
  text = answer.replace("\n", " ").replace("\t", " ").strip()
  words = [_NUMBERS.get(word, word) for word in _punctuation(text).lower().split()]
  return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def _punctuation(text: str) -> str:
  """Drops a mark that is next to a space, and all marks if a number has a comma; the others become spaces."""
  out, glue = text, _COMMA_IN_NUMBER.search(text) is not None
  for mark in _PUNCTUATION:
    out = out.replace(mark, "" if glue or mark + " " in text or " " + mark in text else " ")
  return _PERIOD_OUTSIDE_NUMBER.sub("", out, count=_MOST_PERIODS)


def words_without_punctuation(text: str) -> list[str]:
  """Lower-case words of a text, in which `yes` or `no` can be looked for."""
  return _punctuation(text.lower()).split()
