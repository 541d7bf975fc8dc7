r"""Answers a question about pictures with most of their visual tokens pruned, and shows which ones were kept.

  python -m experiments.generate --keep_ratio=0.2
  python -m experiments.generate --model=Qwen/Qwen2.5-VL-7B-Instruct --head_importance=preset:qwen2.5-vl-7b \
      --image=photo.jpg --prompt="What is this?" --keep_ratio=0.198
  python -m experiments.generate --messages=chat.json --keep_ratio=0.2

A messages file holds a chat in OpenAI's form, [{"role": "user", "content": [{"type": "image_url", "image_url": {"url":
"photo.jpg"}}, {"type": "text", "text": "What is this?"}]}, ...]. Every user's message that no answer follows is answered in
turn, from pictures that are encoded once and visual tokens that are chosen anew.

Writes result.json, kept_tokens.png (what was kept, and the score of every visual token) and scores.npz (`fused` [V], `heads`
[H, V] before normalization, `head_importance` [H], `kept` [V], `order` [V] place in the prompt, `views`: picture, rows,
columns and newlines of each grid of tokens); with --messages, the last two once per turn, with its number.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools
import json
import pathlib
from typing import Any

import jax
import numpy as np

from experiments.digits import embedded
from experiments.evaluation import staged
from experiments.running import command
from experiments.running import files
from experiments.running import loading
from experiments.running import method
from experiments.running import processes
from hawk_jax import checks
from hawk_jax import importance
from hawk_jax import pruning
from hawk_jax import scoring
from hawk_jax import selectors
from models import chat
from models import generation
from models import load_processor
from models import registry
from models import sampling as sampling_lib
from models import stages
from models.inputs import messages as messages_lib
from models.llava import clip_text
from models.processor import Processor
from models.vision_language import Features

RESULT = "result.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(command.MeshSettings, loading.Settings, method.Settings):
  """Settings of the command."""

  model: str = command.option(str(embedded.DIRECTORY / "qwen2_5_vl"), "Checkpoint directory or hub id.")
  image: tuple[str, ...] = command.option(
    (),
    "Picture file; repeat the flag for several. Empty: a question without a picture. By default, without --video and "
    "--messages, an example.",
  )
  video: tuple[str, ...] = command.option((), "Video file; repeat the flag for several. Videos follow the pictures.")
  fps: float = command.option(2.0, "Frames per second to take from videos.")
  max_frames: int = command.option(64, "Largest number of frames to take from a video.")
  prompt: str = command.option("Which digit is red?", "The question.")
  messages: str | None = command.option(
    None, "JSON file with a chat of one or more turns, instead of --prompt, --image and --video."
  )
  keep_ratio: float | None = command.option(None, "Share of the visual tokens to keep, in (0, 1].")
  keep_count: int | None = command.option(None, "Number of visual tokens to keep instead.")
  keep_mass: float | None = command.option(
    None, "Adaptive budget: keep only as many tokens as hold this share of the softmaxed score."
  )
  selector: str = command.option("hawk", "Rule that picks tokens.", choices=lambda: selectors.SELECTORS)
  prune_layer: int = command.option(
    2, "Decoder layers that run on all tokens before a rule that prunes inside the decoder, such as fastv.", least=1
  )
  clip: str | None = command.option(
    None,
    "CLIP checkpoint directory or hub id, which scores the visual tokens of LLaVA-1.5 "
    "in place of HAWK; the selector cdpruner needs it.",
  )
  head_importance: str = command.option("uniform", "preset:NAME, uniform, or a JSON file.")
  head_weights: str = command.option(
    "importance",
    "How heads are weighted: by head_importance, or for each question by mass or entropy of a head's attention.",
    choices=("importance", *scoring.QUESTION_WEIGHTS),
  )
  stages: str = command.option("", method.STAGES)
  merge: str = command.option("none", "What becomes of tokens that are not kept.", choices=selectors.MERGES)
  max_new_tokens: int = command.option(64, "Largest number of tokens in the answer.")
  temperature: float = command.option(0.0, "Temperature of sampling; 0: the most likely token.")
  top_k: int = command.option(0, "Sample from so many of the most likely tokens; 0: from all.")
  top_p: float = command.option(1.0, "Sample from the most likely tokens that reach this share together.")
  seed: int = command.option(0, "Seed of sampling, and of rules that draw at random.", least=0)
  stream: bool = command.option(False, "Whether to print the answer while it grows.")
  output_dir: str = command.option("out/generate", "Directory for the results.")

  def __post_init__(self):
    super().__post_init__()
    if self.messages is not None and (self.image or self.video or self.clip):
      raise ValueError("messages: holds the pictures and videos; give no image, video or clip beside it")
    clip_text.check_given([self.pruning], self.clip)

  @property
  def pruning(self) -> pruning.Pruning:
    """The settings that concern pruning."""
    names = [field.name for field in dataclasses.fields(pruning.Pruning) if hasattr(self, field.name)]
    return pruning.Pruning(**{name: getattr(self, name) for name in names})

  @property
  def scored(self) -> str:
    """What the scores of the rule are, in words."""
    if self.clip:
      return "CLIP relevance"
    if (relevance := self.pruning.rule.relevance) not in (None, "hawk"):
      return f"{relevance} scores"
    layer = f" of {self.scoring_layer}" if self.score_layer else ""
    return f"HAWK scores{layer}, {self.normalization} normalization"


def run(settings: Settings) -> dict[str, Any]:
  """Answers, writes the files, and returns the content of result.json."""
  output = files.output_directory("output_dir", settings.output_dir, results=(RESULT, "scores.npz", "kept_tokens.png"))
  sampling = sampling_lib.make(settings.temperature, settings.top_k, settings.top_p, settings.seed)
  directory, model = registry.describe(settings.model, processes.mesh(settings.mesh))
  stages.check(settings.pruning, model)
  generation.check_measures(model, settings.pruning)
  head_importance = importance.load(settings.head_importance, model.config.text.num_attention_heads)
  processor = load_processor(str(directory))
  messages = _read_messages(settings, processor)
  _check(settings, model, processor, messages)

  clip = clip_text.load(settings.clip, model) if settings.clip else None
  watch, dtype = staged.Stopwatch(), settings.parameter_dtype
  params = watch.time("load", registry.load_params, directory, model, dtype)
  options = staged.Options(
    settings.pruning, head_importance, settings.scored, sampling, settings.seed, settings.max_new_tokens, settings.stream
  )
  answerer = staged.Answerer(model, params, processor, options, clip, watch)
  asked = _questions(messages)
  conversation = chat.Conversation(model, processor, answerer.encode, **settings.pixels)
  # An old picture must not be beside a new result.
  for old in (output / RESULT, *output.glob("scores*.npz"), *output.glob("kept_tokens*.png")):
    old.unlink(missing_ok=True)
  turns: list[dict[str, Any]] = []
  for number, message in enumerate(messages):
    conversation = conversation.add(message)
    if number in asked:
      turn, report = answerer.answer(conversation, output, f"_{len(turns) + 1}" if settings.messages else "")
      conversation = conversation.add(messages_lib.read({"role": "assistant", "content": turn.answer}))
      turns.append(report)
  report = {
    "model": settings.model,
    "keep_ratio": settings.keep_ratio,
    "keep_count": settings.keep_count,
    "keep_mass": settings.keep_mass,
    "rounding": settings.rounding,
    "selector": settings.selector,
    "prune_layer": settings.prune_layer,
    **({"stages": settings.stages} if settings.stages else {}),
    "clip": settings.clip,
    "head_importance": head_importance.tolist(),
    "normalization": settings.normalization,
    "rule": options.rule,
    "sampling": {name: getattr(settings, name) for name in ("temperature", "top_k", "top_p", "seed")},
    "dtype": dtype,
    "platform": jax.default_backend(),
    **({"messages": settings.messages, "turns": turns} if settings.messages else turns[0]),
  }
  files.write(output / RESULT, json.dumps(report, indent=1) + "\n")
  print(f"written         {output}: {', '.join([RESULT, *answerer.written])}")
  return report


def _read_messages(settings: Settings, processor: Processor) -> list[messages_lib.Message]:
  """The chat; without a messages file, one question.

  Raises:
    ValueError: a file that cannot be read, or has nothing to answer.
  """
  read = functools.partial(
    messages_lib.read, fps=settings.fps, max_frames=settings.max_frames, read_video=processor.read_video
  )
  if settings.messages is None:
    example = () if settings.video else (str(embedded.DIRECTORY / "picture.png"),)
    entries = [{"type": "image", "image": path} for path in settings.image or example if path]
    entries += [{"type": "video", "video": path} for path in settings.video]
    return [read({"role": "user", "content": [*entries, {"type": "text", "text": settings.prompt}]})]
  path = pathlib.Path(settings.messages)
  try:
    content = json.loads(checks.read_file(path))
  except (OSError, ValueError, RecursionError) as error:
    raise ValueError(f"messages: cannot read {path} ({error})") from error
  content = content.get("messages") if isinstance(content, dict) else content
  if not isinstance(content, list):
    raise ValueError(f"messages: {path} must hold a list of messages, or an object with one under 'messages'")
  messages = [
    read(message, directory=path.parent, name=f"messages: {path}, message {number}")
    for number, message in enumerate(content)
  ]
  if not _questions(messages):
    raise ValueError(f"messages: {path} has no user's message without an answer")
  return messages


def _questions(messages: Sequence[messages_lib.Message]) -> list[int]:
  """Numbers of the user's messages that no answer follows."""
  following = [message.role for message in messages[1:]] + [None]
  pairs = zip(messages, following)
  return [at for at, (message, after) in enumerate(pairs) if message.role == "user" and after != "assistant"]


def _check(settings: Settings, model, processor, messages: Sequence[messages_lib.Message]) -> None:
  """Packs every question without its predecessors' answers, before there are weights.

  Raises:
    ValueError: what does not fit the model.
  """
  nothing = lambda vision: Features(np.zeros([0, 1], np.float32))
  conversation = chat.Conversation(model, processor, nothing, **settings.pixels)
  for number, message in enumerate(messages):
    conversation = conversation.add(message)
    if number in _questions(messages):
      generation.check_length(model, conversation.pack()[0].prompt, settings.max_new_tokens, processor.eos_token_ids)


def summarize(report: dict[str, Any]) -> dict[str, Any]:
  """A row of `experiments.sweep`: the answer, and how many visual tokens it was made from."""
  return {"answer": report["answer"], "kept": report["kept_visual_tokens"], "of": report["visual_tokens"]}


if __name__ == "__main__":
  command.main(Settings, run)
