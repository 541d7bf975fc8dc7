"""Cases of what goes into a model: arrays, pictures, prompts, chat templates."""

from __future__ import annotations

import atexit
import base64
import contextlib
import functools
import io
import pathlib
import tempfile

import jinja2
import numpy as np
from PIL import Image

from models import load_processor
from models import registry
from models.inputs import messages
from models.inputs import pictures
from models.inputs import templates
from models.inputs import video
from models.inputs.video import Video
from tests.fuzz import files
from tests.fuzz import spoil
from tests.reference import internvl
from tests.reference import llava
from tests.reference import llava_onevision
from tests.reference import qwen2_5_vl
from tests.reference import qwen3_vl

# Configs and prompts of the tiny references: one and several pictures, tilings, videos, text alone.
_BATCHES = {
  "gqa": (qwen2_5_vl, ("square", "two_images", "text_only", "image_and_video")),
  "llama": (llava, ("two", "text_only", "one")),
  "next": (llava, ("two_tilings", "text_only", "portrait")),
  "qwen3": (internvl, ("two_pictures", "text_only", "picture_and_video")),
  "tied": (qwen3_vl, ("exact_6x6", "two_images", "images_and_video")),
  "untied": (llava_onevision, ("wide", "several", "image_and_video")),
}
_SNIPPETS = (
  "{% for a in range(100000) %}",
  "{% for a in messages %}",
  "{% endfor %}",
  "{% if x %}",
  "{{ messages[0]['content'] }}",
  "{{ ''.__class__.__mro__ }}",
  "{{ messages.append(1) }}",
  "{{ 'a' * 100000000000 }}",
  "{{ 9 ** 9 ** 9 }}",
  "{{ 1 / 0 }}",
  "{{ x.y.z }}",
  "{{ messages | nothing }}",
  "{% include 'x' %}",
  "{% set ns = namespace(__class__=1) %}",
  "{{ raise_exception('no') }}",
  "{% generation %}",
  "{{ lipsum.__globals__ }}",
  "\ud800",
  "<image><|image_pad|>",
)


def pack(rng: np.random.Generator) -> None:
  """A port's `pack`: what is accepted is laid out whole, with padding on one side and finite pixels."""
  config = spoil.choose(rng, tuple(_BATCHES))
  model, arrays = _model(config), _batch(config, int(rng.integers(3)))
  arguments = dict(arrays)
  if rng.integers(8):
    arguments = spoil.some(rng, arguments)
  arguments.setdefault("input_ids", None)
  inputs = model.pack(**arguments)

  ids, mask = np.asarray(arguments["input_ids"]), arguments.get("attention_mask")
  mask = np.ones(ids.shape, bool) if mask is None else np.asarray(mask)
  assert np.isin(mask, (0, 1)).all() and (np.diff(mask.astype(int)) != 0).sum(1).max() <= 1, "a hole in the mask"
  prompt = inputs.prompt
  for row in range(len(ids)):
    tokens, text, visual = ids[row][mask[row] == 1], prompt.text_order[row], prompt.visual_order[row]
    places = np.concatenate([text[text >= 0], visual[visual >= 0]])
    assert sorted(places.tolist()) == list(range(len(tokens))), "tokens are lost"
    assert (tokens[text[text >= 0]] == prompt.text_tokens[row][text >= 0]).all(), "other tokens"
  limit = model.config.text.max_position_embeddings
  assert prompt.text_positions.max() < limit and prompt.visual_positions.max(initial=0) < limit
  pixels = [value for name, value in arguments.items() if name.startswith("pixel_values") and value is not None]
  held = getattr(inputs.vision, "patches", getattr(inputs.vision, "tiles", inputs.vision))
  assert (held is None) == (not pixels)
  if pixels:
    wanted = sum(np.abs(np.asarray(value, np.float64)).sum() for value in pixels)
    assert np.isfinite(held).all(), "pixels that are not finite"
    assert np.isclose(np.abs(held.astype(np.float64)).sum(), wanted, rtol=1e-5), "pixels are lost"


def picture(rng: np.random.Generator) -> None:
  """Files of all formats with wrong bytes in them, and what is no picture."""
  files = _files()
  content = spoil.choose(rng, files[spoil.choose(rng, tuple(files))])
  source = spoil.data(rng, content) if rng.integers(8) else spoil.choose(rng, spoil.JUNK)
  opened = pictures.open_picture(source, "images: the file")
  assert opened.mode == "RGB" and 0 < opened.width * opened.height <= pictures.MAX_PIXELS
  np.asarray(opened)


def prompts(rng: np.random.Generator) -> None:
  """A processor's arguments; what it returns can be packed."""
  processor, model = _processor(spoil.choose(rng, files.PORTS))
  shape = spoil.choose(rng, ((40, 50), (40, 50), (40, 50), (1, 1), (3, 500), (1, 300), (200, 1), (2, 20_000), (0, 5)))
  image = Image.new("RGB", shape[::-1]) if rng.integers(2) else np.zeros([*shape, 3], np.uint8)
  chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "b"}]}]
  arguments = dict(images=[[image], []], prompts=["a", "b"]) if rng.integers(2) else dict(images=[[image]], messages=[chat])
  if rng.integers(3) == 0:
    arguments |= {limit: spoil.choose(rng, (None, 64, 4096, 100_000, *spoil.JUNK)) for limit in ("min_pixels", "max_pixels")}
  elif processor.media.video_token is not None and rng.integers(4) == 0:
    frames = np.zeros([int(rng.integers(4)), *shape, 3], np.uint8)
    times = tuple(0.5 * number for number in range(int(rng.integers(len(frames), len(frames) + 2))))
    clip = Video(frames, times, spoil.choose(rng, (0.5, 0.5, 0.0, 1e300, *spoil.JUNK)))
    arguments = dict(videos=[[clip] * int(rng.integers(1, 3))], prompts=["a"])
  elif rng.integers(2):
    key = spoil.choose(rng, tuple(arguments))
    arguments[key] = _inside(rng, arguments[key])
  arrays = processor(**arguments)
  assert len(arrays["input_ids"]) in (1, 2)
  model.pack(**arrays)


def message(rng: np.random.Generator) -> None:
  """A message of a file or of a caller; its pictures and videos can be read."""
  encoded = base64.b64encode(_files()["PNG"][0]).decode()
  entries = (
    {"type": "text", "text": "a"},
    {"type": "image", "image": str(_media() / "picture.png")},
    {"type": "image", "image": "picture.png"},
    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}"}},
    {"type": "video", "video": f"file://{_media() / 'clip.mp4'}"},
    {"type": "video_url", "video_url": {"url": "clip.mp4"}},
  )
  content = [spoil.choose(rng, entries) for _ in range(rng.integers(1, 4))] if rng.integers(8) else "a"
  given = {"role": spoil.choose(rng, messages.ROLES), "content": content}
  if rng.integers(4):
    given = _inside(rng, given)
  read = messages.read(given, directory=_media(), fps=spoil.choose(rng, (2.0, 2.0, *spoil.JUNK)))
  assert read.role == given["role"] and len(read.content) == (
    1 if isinstance(given["content"], str) else len(given["content"])
  )
  for source in read.images:
    assert pictures.open_picture(source, "images").mode == "RGB"
  assert all(len(clip.frames) for clip in read.videos)


def template(rng: np.random.Generator) -> None:
  """Chat templates that fail, forbid, or never end."""
  processor, _ = _processor("qwen2_5_vl")
  source = "".join(rng.choice(_SNIPPETS, rng.integers(0, 4)).tolist())
  if rng.integers(3) == 0:
    at = rng.integers(len(processor.chat_template))
    source = processor.chat_template[:at] + source + processor.chat_template[at:]
  with contextlib.suppress(jinja2.TemplateError):  # which `render` refuses in words of ours
    templates.check_source(source)
  text = templates.render(processor.tokenizer, source, templates.user_message(1, 0, "a"), seconds=0.2)
  assert isinstance(text, str)
  text.encode()


def _inside(rng, value):
  """A list, dict or text with junk somewhere in it."""
  if rng.integers(3) and isinstance(value, list) and value:
    value = list(value)
    at = int(rng.integers(len(value)))
    value[at] = _inside(rng, value[at])
    return value
  if rng.integers(3) and isinstance(value, dict):
    key = spoil.choose(rng, tuple(value))
    return {**value, key: _inside(rng, value[key])}
  return spoil.choose(rng, spoil.JUNK)


@functools.cache
def _model(config):
  return registry.build(pathlib.Path("tiny"), _BATCHES[config][0].CONFIGS[config])


@functools.cache
def _batch(config, kind):
  """A prompt alone, or a batch padded on the right or on the left."""
  reference, names = _BATCHES[config]
  return reference.case(names[0]) if kind == 0 else reference.batch(names, ("right", "left")[kind - 1])


@functools.cache
def _processor(name):
  directory = files.directory(name)
  return load_processor(directory), registry.describe(directory)[1]


@functools.cache
def _media() -> pathlib.Path:
  """A directory with a picture and a clip, which is removed when the process ends."""
  holder = tempfile.TemporaryDirectory()
  atexit.register(holder.cleanup)
  directory = pathlib.Path(holder.name)
  (directory / "picture.png").write_bytes(_files()["PNG"][0])
  video.write(directory / "clip.mp4", [np.zeros([16, 16, 3], np.uint8)] * 4, 2)
  return directory


@functools.cache
def _files() -> dict[str, list[bytes]]:
  """Small pictures by format, those that are allowed and others."""
  noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, [24, 31, 3], np.uint8))
  deep = Image.fromarray((np.arange(100).reshape(10, 10) * 600).astype(np.uint16))
  turned = Image.Exif()
  turned[0x0112] = 6

  def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()

  return {
    "PNG": [saved(noise, "PNG", exif=turned), saved(deep, "PNG"), saved(noise.convert("P"), "PNG")],
    "JPEG": [saved(noise, "JPEG", exif=turned), saved(noise.convert("CMYK"), "JPEG")],
    "MPO": [saved(noise, "MPO", save_all=True, append_images=[noise])],
    "WEBP": [saved(noise, "WEBP"), saved(noise, "WEBP", lossless=True)],
    "GIF": [saved(noise, "GIF", save_all=True, append_images=[noise.rotate(90)])],
    "TIFF": [saved(noise, "TIFF"), saved(noise, "TIFF", compression="tiff_lzw"), saved(deep, "TIFF")],
    "BMP": [saved(noise, "BMP")],
    "PPM": [saved(noise, "PPM")],
    "others": [saved(noise, "EPS"), saved(noise, "ICO"), saved(noise, "PDF"), b"<svg/>", b"%!PS-Adobe-3.0 EPSF-3.0\n"],
  }


SUBJECTS = {"pack": pack, "pictures": picture, "prompts": prompts, "messages": message, "templates": template}
