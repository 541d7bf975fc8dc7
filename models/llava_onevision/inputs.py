"""Arrays of a Hugging Face processor for LLaVA-OneVision to fixed shapes, on the host.

A picture that is alone in its prompt becomes several tiles (`models.inputs.tiles`). The tokens of the tiled view, if they
are many, are scaled down bilinearly, and every row of them is followed by a newline. If a prompt has several pictures, each
is one tile and a newline. Each frame of a video is one tile, scaled down bilinearly to half as many tokens along each side,
and a newline follows the last frame.

So a visual token is a weighted sum of up to four tokens of the tower. `Layout` names them.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import math

from flax import struct
import numpy as np

from hawk_jax import checks
from hawk_jax.buckets import bucket
from models.inputs import packing
from models.inputs import synthetic
from models.inputs import tiles as tiles_lib
from models.llava_onevision.config import LlavaOnevisionConfig
from models.vision_language import Inputs

_NEWLINE = -1
# Tiled views of at most this many times as many tokens along a side as `max_tiles` allows are not scaled down.
_TOLERANCE = 1.1
_NEWLINE_TAPS = np.full([1, 4], _NEWLINE, np.int32), np.eye(1, 4, dtype=np.float32)
# A newline that follows what is not a row: a view without columns.
_END = (1, 0, True)


@struct.dataclass
class VisionInputs:
  """What the tower gets, and how visual tokens follow from its tokens.

  Attributes:
    tiles: [P, C, H, W] normalized pixels of tiles and frames.
    taps: [F, 4] int32, tokens of the tower, numbered through all tiles; the newline follows those of the last.
    weights: [F, 4] float32, of the taps in each visual token; zeros on padding.
  """

  tiles: np.ndarray
  taps: np.ndarray
  weights: np.ndarray


@dataclasses.dataclass(frozen=True)
class Layout:
  """How the visual tokens of a picture or video follow from its tiles.

  Attributes:
    tiles: tiles of the picture, or frames of the video.
    views: for each picture or frame, rows and columns of each view, in order, and whether a newline follows every row.
    taps: [count, 4] int32 tokens of the tiles, or _NEWLINE.
    weights: [count, 4] float32, of the taps.
  """

  tiles: int
  views: Sequence[Sequence[tuple[int, int, bool]]]
  taps: np.ndarray
  weights: np.ndarray

  @property
  def count(self) -> int:
    """Visual tokens, newlines included."""
    return len(self.taps)


def picture_layout(config: LlavaOnevisionConfig, height: int, width: int) -> Layout:
  """A picture that is alone in its prompt: the whole of it, then the tiled view.

  Args:
    config: of the model.
    height: of the picture in pixels, as the image processor gets it.
    width: of the picture in pixels.
  """
  side = config.vision.side
  tiles, places = tiles_lib.tiled_view(config.vision, config.grid_pinpoints, height, width)
  rows, columns = places.shape
  if (ratio := math.sqrt(rows * columns / (config.max_tiles * side**2))) > _TOLERANCE:
    rows, columns = int(rows // ratio), int(columns // ratio)
  newlines = [np.repeat(x[None], rows, axis=0) for x in _NEWLINE_TAPS]
  tiled = [np.concatenate(x, axis=1) for x in zip(resize(places, rows, columns), newlines)]
  return _layout(tiles, [[(side, side, False), (rows, columns, True)]], _whole(config), tiled)


def whole_layout(config: LlavaOnevisionConfig) -> Layout:
  """One of several pictures of a prompt."""
  side = config.vision.side
  return _layout(1, [[(side, side, False), _END]], _whole(config), _NEWLINE_TAPS)


def picture_layouts(config: LlavaOnevisionConfig, sizes, batch_num_images=None) -> list[Layout]:
  """The pictures of a batch.

  Args:
    config: of the model.
    sizes: (height, width) of each picture in pixels.
    batch_num_images: [prompts with pictures], number of pictures of each. None: every picture is alone in its prompt.

  Raises:
    ValueError: numbers that do not add up to the pictures.
  """
  allowed = f"the number of pictures of each prompt that has some, {len(sizes)} in all"
  groups = np.ones(len(sizes), int) if batch_num_images is None else batch_num_images
  groups = checks.real_array("batch_num_images", groups, allowed)
  if groups.ndim != 1 or groups.dtype.kind not in "iu" or groups.min(initial=1) < 1 or sum(groups.tolist()) != len(sizes):
    raise ValueError(f"batch_num_images: got {checks.show(groups.tolist())}, must be {allowed}")
  alone = np.repeat(groups == 1, groups.astype(np.int64))
  return [picture_layout(config, *size) if only else whole_layout(config) for size, only in zip(sizes, alone)]


def video_layout(config: LlavaOnevisionConfig, frames: int) -> Layout:
  """A video of so many frames."""
  side = config.vision.side
  half = -(-side // 2)
  taps, weights = resize(np.arange(side**2, dtype=np.int32).reshape(side, side), half, half)
  starts = side**2 * np.arange(frames, dtype=np.int32)[:, None, None, None]
  views = [[(half, half, False)] for _ in range(frames)]
  views[-1].append(_END)
  return _layout(frames, views, (starts + taps, np.repeat(weights[None], frames, axis=0)), _NEWLINE_TAPS)


def resize(places: np.ndarray, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
  """Bilinear scaling as torch's interpolate does it: pixel centres, no antialiasing.

  Args:
    places: [h, w] int32 tokens of a view.
    rows: of the scaled view.
    columns: of the scaled view.

  Returns:
    [rows, columns, 4] int32 tokens of the view, and their float32 weights.
  """

  def axis(size, new):
    at = np.maximum((np.arange(new) + 0.5) * size / new - 0.5, 0)
    low = at.astype(int)
    second = at - low
    return np.stack([low, np.minimum(low + 1, size - 1)], axis=-1), np.stack([1 - second, second], axis=-1)

  (down, above), (across, left) = axis(places.shape[0], rows), axis(places.shape[1], columns)
  taps = places[down[:, None, :, None], across[None, :, None, :]]
  weights = above[:, None, :, None] * left[None, :, None, :]
  merged = lambda x: x.reshape(rows, columns, 4)
  return merged(taps), merged(weights).astype(np.float32)


def _whole(config):
  """Taps and weights of a tile's tokens as they are."""
  side = config.vision.side
  return resize(np.arange(side**2, dtype=np.int32).reshape(side, side), side, side)


def _layout(tiles, views, *parts):
  """A layout of taps and weights [..., 4] that follow one another."""
  return Layout(tiles, views, *(np.concatenate([x.reshape(-1, 4) for x in some]) for some in zip(*parts)))


def pack(
  config: LlavaOnevisionConfig,
  input_ids,
  attention_mask=None,
  pixel_values=None,
  image_sizes=None,
  batch_num_images=None,
  pixel_values_videos=None,
  video_frames=None,
  shards: int = 1,
) -> Inputs:
  """Plans a batch; see `LlavaOnevision.pack`."""
  tokens, mask = packing.check_tokens(input_ids, attention_mask, config.text.vocab_size)
  packing.check_together("image_sizes", image_sizes, "pixel_values", pixel_values)
  image_tiles, sizes, images = _pictures(config, pixel_values, image_sizes, batch_num_images)
  video_tiles, counts, videos = _videos(config, pixel_values_videos, video_frames)
  tiles, layouts = np.concatenate([image_tiles, video_tiles]), images + videos
  per_tile = config.vision.tokens
  room = -(-bucket(len(tiles), minimum=1) // shards) * shards
  ends = np.cumsum([0, *(layout.count for layout in layouts)])
  taps = np.zeros([bucket(int(ends[-1]), packing.VISUAL_MINIMUM), 4], np.int32)
  weights = np.zeros(taps.shape, np.float32)
  slots, start = [], 0
  for layout, first, end in zip(layouts, ends, ends[1:]):
    taps[first:end] = np.where(layout.taps == _NEWLINE, room * per_tile, layout.taps + start * per_tile)
    weights[first:end] = layout.weights
    slots.append(np.arange(first, end, dtype=np.int32))
    start += layout.tiles

  def pictures(kind, argument, noun, sizes, some, slots, places=None):
    positions = [np.arange(layout.count, dtype=np.int32)[:, None] for layout in some]
    return packing.Pictures(kind, argument, noun, sizes, slots, positions, [layout.views for layout in some], places)

  prompt, views = packing.plan_prompts(
    config.text,
    tokens,
    mask,
    {
      config.image_token_id: pictures("image", "image_sizes", "size", sizes, images, slots[: len(images)]),
      config.video_token_id: pictures(
        "video",
        "pixel_values_videos",
        "frame count",
        [[count] for count in counts],
        videos,
        slots[len(images) :],
        _places(config, counts),
      ),
    },
    end_ids=config.eos_token_ids,
  )
  padded = np.pad(tiles, ((0, room - len(tiles)),) + ((0, 0),) * 3)
  return Inputs(prompt, VisionInputs(padded, taps, weights) if room else None, views)


def _places(config, counts):
  """For each video, ids that only tokens at the same place in its frames share; the newline has one of its own."""
  size = (-(-config.vision.side // 2)) ** 2
  ids = [np.append(np.tile(np.arange(size), count), size) for count in counts]
  return [number * (size + 1) + some for number, some in enumerate(ids)]


def synthetic_batch(config: LlavaOnevisionConfig, sizes, text_tokens: int, rng) -> dict[str, np.ndarray]:
  """See `VisionLanguageModel.synthetic_batch`."""
  layouts = [picture_layout(config, *size) for size in sizes]
  counts = [layout.tiles for layout in layouts]
  shape = (len(sizes), max(counts)) + config.vision.tile_shape
  prompts = synthetic.prompts(
    config.text,
    config.image_token_id,
    [layout.count for layout in layouts],
    text_tokens,
    rng,
    special=[config.video_token_id, *config.eos_token_ids],
  )
  pixels = tiles_lib.without_padding(synthetic.noise(shape, rng), counts)
  return {**prompts, "pixel_values": pixels, "image_sizes": np.asarray(sizes), "batch_num_images": np.ones(len(sizes), int)}


def _pictures(config, pixel_values, image_sizes, batch_num_images):
  """[P, C, H, W] tiles of all pictures, their sizes and their layouts."""
  if pixel_values is None:
    return np.zeros((0,) + config.vision.tile_shape, np.float32), [], []
  pixels = tiles_lib.check_pixels(config.vision, "pixel_values", pixel_values, "pictures", "tiles")
  sizes = tiles_lib.check_sizes(image_sizes, len(pixels))
  layouts = picture_layouts(config, sizes, batch_num_images)
  return tiles_lib.join(pixels, sizes, [layout.tiles for layout in layouts]), sizes, layouts


def _videos(config, pixel_values_videos, video_frames):
  """[P, C, H, W] frames of all videos, how many each has, and their layouts."""
  if pixel_values_videos is None:
    return np.zeros((0,) + config.vision.tile_shape, np.float32), [], []
  pixels = tiles_lib.check_pixels(config.vision, "pixel_values_videos", pixel_values_videos, "videos", "frames")
  videos, most = pixels.shape[:2]
  allowed = f"from 1 to {most} for each of {videos} videos"
  counts = checks.whole_array("video_frames", [most] * videos if video_frames is None else video_frames, allowed)
  if counts.shape != (videos,) or not 1 <= counts.min() <= counts.max() <= most:
    raise ValueError(f"video_frames: got {checks.show(counts.tolist())}, must be {allowed}")
  frames = np.concatenate([video[:count] for video, count in zip(pixels, counts)])
  return frames, counts.tolist(), [video_layout(config, count) for count in counts.tolist()]
