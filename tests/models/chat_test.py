"""Chats: every turn is what a fresh prompt with the same messages gives, and pictures are encoded once."""

import base64
import pathlib
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
from PIL import Image

from models import chat
from models import generate
from models import generation
from models import load_model
from models import load_processor
from models.inputs import messages
from models.inputs.video import Video

EMBEDDED = pathlib.Path(__file__).parents[2] / "experiments" / "embedded_models"
PICTURE = EMBEDDED / "picture.png"
QUESTIONS = ("Which digit is red?", "Which digit is blue?", "How many digits are green?")
OPTIONS = dict(keep_ratio=0.2, max_new_tokens=4)


def entry(url):
  """A message with a picture."""
  return {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}


class ChatTest(parameterized.TestCase):
  def load(self, name):
    directory = str(EMBEDDED / name)
    model, params = load_model(directory)
    return model, params, load_processor(directory)

  def fresh(self, model, params, processor, asked, pictures):
    """The generation of a prompt that holds all messages."""
    inputs = model.pack(**processor(images=[pictures], messages=[[message.template for message in asked]]))
    out = generate(model, params, inputs, eos_token_ids=processor.eos_token_ids, **OPTIONS)
    return np.asarray(out.tokens)[0, : int(out.lengths[0])], np.asarray(out.kept_positions)[0]

  def check(self, name, pictures):
    """Asks all questions, with the given pictures in each turn, beside fresh prompts."""
    model, params, processor = self.load(name)
    talk, shown = chat.Chat(model, params, processor, **OPTIONS), []
    with mock.patch.object(generation, "encode", wraps=generation.encode) as encode:
      turns = [talk.ask(question, images=images) for question, images in zip(QUESTIONS, pictures)]
      self.assertEqual(encode.call_count, sum(map(bool, pictures)))
    asked = talk.conversation.messages
    self.assertLen(asked, 6)
    for number, turn in enumerate(turns):
      shown += [Image.open(picture) if isinstance(picture, pathlib.Path) else picture for picture in pictures[number]]
      tokens, kept = self.fresh(model, params, processor, asked[: 2 * number + 1], shown)
      np.testing.assert_array_equal(turn.tokens, tokens)
      np.testing.assert_array_equal(turn.kept_positions, kept[kept >= 0])
      self.assertEqual(asked[2 * number + 1].text, turn.answer)
      self.assertLen(turn.kept, 144 * len(shown))
      self.assertEqual(turn.kept.sum(), np.ceil(0.2 * turn.kept.size))
    return turns

  def test_three_turns_equal_fresh_prompts(self):
    turns = self.check("qwen2_5_vl", [[PICTURE], [], []])
    self.assertEqual(turns[0].answer, "0")
    self.assertFalse(np.array_equal(turns[0].kept, turns[1].kept))  # chosen anew

  def test_pictures_that_come_later(self):
    other = Image.fromarray(np.asarray(Image.open(PICTURE))[::-1].copy())
    self.check("llava", [[PICTURE], [], [other]])

  def test_a_refused_question_leaves_the_chat_as_it_was(self):
    talk = chat.Chat(*self.load("qwen2_5_vl"), **OPTIONS)
    for arguments, message in (
      (dict(content="?", images=["/no/such.png"]), "does not exist"),
      (dict(content="?", keep_ratio=2.0), "keep_ratio: got 2.0"),
      (dict(content=[{"type": "sound"}]), "must be a text, image"),
    ):
      with self.subTest(message), self.assertRaisesRegex(ValueError, message):
        talk.ask(**arguments)
    self.assertEmpty(talk.conversation.messages)


class MessageTest(parameterized.TestCase):
  def test_the_forms_of_pictures(self):
    data = "data:image/png;base64," + base64.b64encode(PICTURE.read_bytes()).decode()
    picture = Image.open(PICTURE)
    entries = [
      {"type": "image_url", "image_url": {"url": "picture.png"}},
      {"type": "image_url", "image_url": f"file://{PICTURE}"},
      {"type": "text", "text": "a"},
      {"type": "image_url", "image_url": {"url": data}},
      {"type": "image", "image": picture},
      {"type": "text", "text": "b"},
    ]
    read = messages.read({"role": "user", "content": entries}, directory=EMBEDDED)
    self.assertEqual([entry["type"] for entry in read.content], ["image", "image", "text", "image", "image", "text"])
    self.assertEqual(read.images, (PICTURE, PICTURE, PICTURE.read_bytes(), picture))
    self.assertEqual((read.text, read.sources), ("a\nb", (str(PICTURE), str(PICTURE))))

  def test_videos_show_a_frame_per_slice(self):
    model, _, processor = ChatTest.load(self, "qwen2_5_vl")
    frames = np.stack([np.full([64, 64, 3], 10 * number, np.uint8) for number in range(4)])
    entries = [{"type": "image", "image": PICTURE}, {"type": "video", "video": Video(frames, (0.0, 0.5, 1.0, 1.5), 0.5)}]
    asked = messages.read({"role": "user", "content": [*entries, {"type": "text", "text": "?"}]})
    nothing = lambda vision: chat.Features(np.zeros([0, 1], np.float32))
    conversation = chat.Conversation(model, processor, nothing).add(asked)
    self.assertEqual([picture.getpixel((0, 0))[0] for picture in conversation.pictures[1:]], [0, 20])

  @parameterized.parameters(
    ("text", "must have a content and a role"),
    ({"role": "tool", "content": "a"}, "must have a content and a role: system, user, assistant"),
    ({"role": "user"}, "must have a content"),
    ({"role": "user", "content": 3}, "content must be text or a list, got int"),
    ({"role": "user", "content": ["a"]}, "must be a text, image"),
    ({"role": "user", "content": [{"type": "text"}]}, "must be a text, image"),
    (entry("https://a/b.png"), "nothing is downloaded"),
    (entry("data:image/png;base64,?"), "not a data url"),
    (entry("data:image/png,abc"), "must be base64"),
    ({"role": "user", "content": [{"type": "video", "video": "/no/such.mp4"}]}, "videos: there is no file"),
  )
  def test_refused(self, message, error):
    with self.assertRaisesRegex(ValueError, f"{error}"):
      messages.read(message)


if __name__ == "__main__":
  absltest.main()
