"""The embedded models' task: pictures full of handwritten digits, where only the question shows which one matters.

A picture is a 12 x 12 grid of cells of 16 x 16 pixels, and each cell becomes one visual token. Coloured digits are scattered
among grey ones. The people who wrote the test digits wrote none of the training digits.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from experiments.digits import handwriting

GRID = 12
CELL = handwriting.SIDE
COLORS = {
  "red": (215, 25, 30),
  "green": (25, 150, 45),
  "blue": (30, 60, 215),
  "orange": (250, 140, 10),
  "purple": (135, 35, 175),
  "cyan": (0, 180, 200),
  "pink": (250, 110, 185),
  "brown": (115, 70, 25),
}
GREY = (150, 150, 150)

TEMPLATES = {
  "color_to_digit": (
    "Which digit is {color}?",
    "What is the {color} digit?",
    "Which number is written in {color}?",
    "Tell me the digit that is {color}.",
    "Please read the {color} digit.",
    "There is one {color} digit in the picture. Which one is it?",
    "Look for the {color} number and say what it is.",
    "Can you find the digit in {color} ink? Name it.",
  ),
  "digit_to_color": (
    "What color is the {digit}?",
    "Which color does the {digit} have?",
    "In which color is the {digit} written?",
    "Tell me the color of the {digit}.",
    "Please name the ink of the {digit}.",
    "One {digit} is not grey. What color is it?",
    "Look for the {digit} in color and say which color it has.",
    "Somebody wrote a {digit} in color. Which one?",
  ),
  "beside": (
    "Which digit is to the {side} of the {color} one?",
    "What stands {side} of the {color} digit?",
    "Name the digit on the {side} side of the {color} one.",
    "Please read the number just {side} of the {color} digit.",
    "Find the {color} digit. Which one is its {side} neighbor?",
    "Look {side} of the {color} number. What do you see there?",
  ),
  "count": (
    "How many digits are {color}?",
    "How many {color} digits are there?",
    "Count the {color} digits.",
    "What is the number of digits written in {color}?",
    "Please count everything that is {color}.",
    "How often do you see a digit in {color} ink?",
  ),
  "boxed": (
    "Which digit is in the box?",
    "What is the boxed digit?",
    "Tell me the number inside the frame.",
    "Please read the digit with a frame around it.",
    "One digit has a box around it. Which one is it?",
    "There is a frame in the picture. What is written in it?",
  ),
}
KINDS = tuple(TEMPLATES)


@dataclasses.dataclass(frozen=True)
class Question:
  """A question about a picture.

  Attributes:
    kind: one of KINDS.
    text: of the question.
    answer: its only right answer.
    cells: (row, column) of the cells that the question is about.
  """

  kind: str
  text: str
  answer: str
  cells: tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True)
class Scene:
  """What a picture shows.

  Attributes:
    digits: [12, 12] int, the digit in each cell, -1 if empty.
    colors: [12, 12] int, index into COLORS, 8 for grey, -1 if empty.
    glyphs: [12, 12] int, index into `handwriting.originals`, or into `handwriting.varied` if `varied`.
    shifts: [12, 12, 2] int, pixels by which each digit is displaced down and to the right.
    box: (row, column) of the boxed digit.
    varied: whether the digits are distorted; they are in the training split.
  """

  digits: np.ndarray
  colors: np.ndarray
  glyphs: np.ndarray
  shifts: np.ndarray
  box: tuple[int, int]
  varied: bool


def make_scene(rng: np.random.Generator, split: str, difficulty: float = 1.0) -> Scene:
  """Draws a scene.

  Args:
    rng: source of all choices.
    split: whose handwriting: `train`, `calibration` or `test`.
    difficulty: share of the full number of digits, for the curriculum; 1 gives 12 coloured and 20 to 32 grey digits.
  """
  low, high = handwriting.SPLITS[split]
  labels = handwriting.originals()[1][low:high]
  digits = np.full([GRID, GRID], -1)
  colors = np.full([GRID, GRID], -1)
  counts = [1, 1, 1] + ([2, 3, 4] if difficulty >= 1 else [2, 3] if difficulty > 0.5 else [2])
  palette = rng.permutation(len(COLORS))
  # A colour that occurs once gets a digit that no other coloured cell has.
  unique, common = np.split(rng.permutation(10), [3])
  cells = iter([(int(cell) // GRID, int(cell) % GRID) for cell in rng.permutation(GRID * GRID)])

  def place(cell, digit, color):
    digits[cell], colors[cell] = digit, color

  def any_free():
    return next(cell for cell in cells if digits[cell] < 0)

  for number, (color, count) in enumerate(zip(palette, counts)):
    for _ in range(count):
      cell = any_free()
      place(cell, unique[number] if count == 1 else rng.choice(common), color)
      if count == 1:
        for column in (cell[1] - 1, cell[1] + 1):
          if 0 <= column < GRID and digits[cell[0], column] < 0 and rng.random() < 0.8:
            place((cell[0], column), rng.integers(10), len(COLORS))
  for _ in range(round(difficulty * rng.integers(20, 27))):
    place(any_free(), rng.integers(10), len(COLORS))

  glyphs = np.zeros([GRID, GRID], int)
  for digit in range(10):
    cells = digits == digit
    glyphs[cells] = low + rng.choice(np.flatnonzero(labels == digit), int(cells.sum()))
  filled = np.argwhere(digits >= 0)
  box = tuple(int(x) for x in filled[rng.integers(len(filled))])
  shifts, varied = rng.integers(-2, 3, [GRID, GRID, 2]), split == "train"
  if varied:
    glyphs += (high - low) * rng.integers(handwriting.VARIANTS, size=glyphs.shape)
  return Scene(digits, colors, glyphs, shifts, box, varied)


def render(scene: Scene, rng: np.random.Generator) -> np.ndarray:
  """Draws a scene as [192, 192, 3] uint8; `rng` chooses the colour of the paper, the exact inks and the noise."""
  ink_of = handwriting.varied() if scene.varied else handwriting.originals()[0]
  size, margin = GRID * CELL, CELL
  paper = 255 - rng.integers(0, 20, 3)
  canvas = np.broadcast_to(paper, (size + 2 * margin, size + 2 * margin, 3)).astype(np.float32).copy()
  inks = np.asarray([*COLORS.values(), GREY], np.float32)
  inks = np.clip(inks + rng.normal(0, 8, inks.shape), 0, 255)
  for row, column in np.argwhere(scene.digits >= 0):
    top, left = margin + CELL * np.array([row, column]) + scene.shifts[row, column]
    patch = canvas[top : top + CELL, left : left + CELL]
    alpha = ink_of[scene.glyphs[row, column]][..., None]
    patch += alpha * (inks[scene.colors[row, column]] - patch)
  top, left = margin + CELL * np.array(scene.box)
  for line in (
    canvas[top, left : left + CELL],
    canvas[top + CELL - 1, left : left + CELL],
    canvas[top : top + CELL, left],
    canvas[top : top + CELL, left + CELL - 1],
  ):
    line[:] = 20
  picture = canvas[margin:-margin, margin:-margin]
  picture += 4 * rng.standard_normal(picture.shape, dtype=np.float32)
  return np.clip(picture, 0, 255).round().astype(np.uint8)


def questions(scene: Scene, rng: np.random.Generator) -> list[Question]:
  """All questions that a scene answers, in random order, each in one randomly chosen wording."""
  names = list(COLORS)
  found = []

  def ask(kind, answer, cells, **words):
    template = TEMPLATES[kind][rng.integers(len(TEMPLATES[kind]))]
    found.append(Question(kind, template.format(**words), str(answer), tuple(tuple(map(int, c)) for c in cells)))

  colored = (scene.colors >= 0) & (scene.colors < len(names))
  for index, name in enumerate(names):
    cells = np.argwhere(scene.colors == index)
    if not len(cells):
      continue
    # Three colours occur once and three more often: counting only one in three of the former keeps the answers balanced.
    if len(cells) > 1 or rng.random() < 1 / 3:
      ask("count", len(cells), cells, color=name)
    if len(cells) > 1:
      continue
    row, column = cells[0]
    ask("color_to_digit", scene.digits[row, column], cells, color=name)
    for side, beside in (("left", column - 1), ("right", column + 1)):
      if 0 <= beside < GRID and scene.digits[row, beside] >= 0:
        ask("beside", scene.digits[row, beside], [(row, column), (row, beside)], color=name, side=side)
  for digit in range(10):
    cells = np.argwhere(colored & (scene.digits == digit))
    if len(cells) == 1:
      ask("digit_to_color", names[scene.colors[tuple(cells[0])]], cells, digit=digit)
  ask("boxed", scene.digits[scene.box], [scene.box])
  return [found[i] for i in rng.permutation(len(found))]


def balanced(found: list[Question], rng: np.random.Generator, number: int) -> list[Question]:
  """Chooses some of a scene's questions, as evenly over the kinds as possible.

  Args:
    found: of `questions`.
    rng: source of all choices.
    number: how many to choose.

  Raises:
    ValueError: there are fewer.
  """
  if number > len(found):
    raise ValueError(f"number: got {number}, must be at most {len(found)}, the scene's questions")
  by_kind = {kind: [question for question in found if question.kind == kind] for kind in KINDS}
  chosen = []
  while len(chosen) < number:
    available = [kind for kind in KINDS if by_kind[kind]]
    for kind in rng.permutation(available)[: number - len(chosen)]:
      chosen.append(by_kind[str(kind)].pop())
  return chosen


def dataset(split: str, count: int, seed: int = 0) -> list[tuple[np.ndarray, Question]]:
  """Pictures with one question each, the kinds of question in turn; the same for the same arguments."""
  examples = []
  for number in range(count):
    rng = np.random.default_rng([seed, list(handwriting.SPLITS).index(split), number])
    kind = KINDS[number % len(KINDS)]
    found = []
    while not found:
      scene = make_scene(rng, split)
      found = [question for question in questions(scene, rng) if question.kind == kind]
    examples.append((render(scene, rng), found[0]))
  return examples


def demo_picture() -> tuple[np.ndarray, Question]:
  """The picture of the README and run.sh, and its question: the first test scene that has exactly one red digit."""
  for number in range(1000):
    rng = np.random.default_rng(number)
    scene = make_scene(rng, "test")
    picture = render(scene, rng)
    for question in questions(scene, rng):
      if question.text == "Which digit is red?":
        return picture, question
  raise AssertionError("no such scene")
