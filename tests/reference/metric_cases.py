"""Answers, tables and prompts that `make_metric_goldens` puts to VLMEvalKit's own code."""

from __future__ import annotations

_TEN = lambda *pairs: [answer for answer, count in pairs for _ in range(count)]
CONSENSUS = [
  ("nokia", _TEN(("nokia", 10))),
  ("Nokia.", _TEN(("nokia", 3), ("samsung", 7))),
  ("nokia", _TEN(("nokia", 2), ("lg", 8))),
  ("the nokia", _TEN(("nokia", 1), ("lg", 9))),
  ("two", _TEN(("2", 4), ("3", 6))),
  ("2", _TEN(("two", 5), ("three", 5))),
  ("none", _TEN(("0", 9), ("no", 1))),
  ("1,000", _TEN(("1000", 6), ("1,000", 4))),
  ("3.5", _TEN(("3.5", 5), ("35", 5))),
  ("dont walk", _TEN(("don't walk", 10))),
  ("Dont't", _TEN(("don't", 10))),
  ("st. john's", _TEN(("st john's", 7), ("st. johns", 3))),
  ("half-off", _TEN(("half off", 5), ("halfoff", 5))),
  ("yes!", _TEN(("yes", 8), ("no", 2))),
  ("A.B.C.", _TEN(("abc", 5), ("a.b.c.", 5))),
  ("10:30 am", _TEN(("10:30", 4), ("10:30 am", 2), ("1030am", 4))),
  ("coca cola\n", _TEN(("coca cola", 4), ("coca-cola", 6))),
  ("$5.99", _TEN(("$5.99", 2), ("5.99", 8))),
  ("", _TEN(("unanswerable", 10))),
  ("couldntve", _TEN(("couldn't've", 10))),
  ("couldn'tve", _TEN(("couldn't've", 10))),
  ("somebody'd", _TEN(("somebodyd", 10))),
  ("ow's'at", _TEN(("'ow's'at", 10))),
  ("oclock", _TEN(("o'clock", 3), ("clock", 7))),
  ("." * 40 + "x", _TEN(("x", 10))),
  ("a man", ["man"]),
  ("twas she's its", _TEN(("'twas she's its", 10))),
  ("yall'll", _TEN(("y'all'll", 4), ("yall", 6))),
  ("50%", _TEN(("50%", 3), ("50", 7))),
  ("50 %", _TEN(("50%", 5), ("50 %", 5))),
  ("1990s", _TEN(("1990's", 5), ("1990s", 2), ("1990", 3))),
  ("two dogs", _TEN(("2 dogs", 6), ("2 dog", 4))),
  ("Yes. It is a phone", _TEN(("yes", 10))),
]
RELAXED = [
  ("10.4", "10"),
  ("10.5", "10"),
  ("10.51", "10"),
  ("9.5", "10"),
  ("9.49", "10"),
  ("14%", "14%"),
  ("14", "14%"),
  ("0.14", "14%"),
  ("14.6%", "14%"),
  ("14.8%", "14%"),
  ("2008", "2010"),
  ("1999", "2010"),
  ("2010", "2010"),
  ("0", "0"),
  ("0.0", "0"),
  ("0.01", "0"),
  ("Yes", "yes"),
  ("yes.", "Yes"),
  ("Male ", "male"),
  (" 42\n", "42"),
  ("42 people", "42"),
  ("1,200", "1200"),
  ("1200", "1,200"),
  ("-5", "-5.2"),
  ("5", "-5"),
  ("1e3", "1000"),
  ("nan", "3"),
  ("inf", "3"),
  ("[1, 2]", "[1, 2]"),
  ("3", "['3', '4']"),
  ("4.1", "['3', '4']"),
  ("dogs", "dog"),
  ("", "5"),
  ("%", "5%"),
  ("United States", "united states"),
  ("12.0", "12"),
  ("50%%", "50%"),
  ("5 %", "5%"),
  ("5 percent", "5%"),
  ("105%", "100%"),
  ("in 2010", "2010"),
  ("2010.", "2010"),
  ("1990s", "1990"),
  ("two", "2"),
  ("2 dogs", "2"),
  ("Yes. There are.", "Yes"),
  ("(a)", "a"),
  ("$5", "5"),
  (".5", "0.5"),
]
EXACT = [
  ("Yes", "yes"),
  ("yes.", "yes"),
  (" Yes ", "yes"),
  ("no", "No"),
  ("John Smith", "john smith"),
  ("John  Smith", "John Smith"),
  ("J. Smith", "J Smith"),
  ("1999", "1999"),
  ("1999.", "1999"),
  ("children's books", "Children's Books"),
  ("Children's Books\n", "children's books"),
  ("", "x"),
  ("x", " x "),
  ("Arts & Photography", "arts & photography"),
  ("Arts", "arts & photography"),
  ("a", "['a', 'b']"),
  ("B", "['a', 'b']"),
  ("c", "['a', 'b']"),
  ("The Book", "Book"),
  ("ÉCOLE", "école"),
  ("yes, it is", "yes"),
  ("10", "10"),
  ("Yes. It is.", "yes"),
  ("10%", "10 %"),
  ("1990s", "1990's"),
  ("(b)", "b"),
  ("Books", "book"),
]
YES_NO = [
  "Yes",
  "yes",
  "YES.",
  "No",
  "no,",
  "yes.",
  "Yes. The picture shows a dog.",
  "No, there is not.",
  "Yes and no",
  "not sure",
  "",
  "No no no",
  "The answer is yes",
  "Yes, there is no cat",
  "yesterday",
  "Noah",
  "yes/no",
  "(yes)",
  "Yes-it is",
  "n o",
  "**Yes**",
  "yes it's 1,000",
  "Answer: No",
  "no.yes",
  "'yes'",
  "Yes\nNo",
  "nope",
  "yes:",
  "NO!",
  "y.e.s",
]
OPTIONS = {"A": "a cat", "B": "a dog", "C": "two dogs", "D": "None of the above"}
CHOICES = [
  "A",
  "a",
  "(B)",
  "B.",
  "b.",
  "C) two dogs",
  "The answer is D",
  "the answer is d",
  "answer is **C**. Because it barks",
  "a dog",
  "A dog",
  "It shows two dogs",
  "two dogs and a cat",
  "The animal is a cat.",
  "none of the above",
  "Z",
  "E",
  "A or B",
  "A and then some more words that go on for long",
  "Some more words that go on and the answer: A",
  "The correct answer is B, because of a long and winding explanation of it",
  "The answer is cat",
  "I'm sorry, but without the image provided I cannot say",
  "Cannot determine the answer",
  "",
  "Option A",
  "[C]",
  "{D}",
  "A: a cat",
  "AB",
  "A,B",
  "Failed to obtain answer via API",
  "dog",
  "A dog is what I see in this picture for sure",
  "*B*",
  "#B",
  "B!",
  "'B'",
  "-B",
  "(b)",
  "(c) two dogs",
  "c",
  "d. none of the above",
  "the answer is (b)",
  "two Dogs.",
  "I think that it must be either the first one or the second one or maybe even all of these animals together, who knows",
  "Sorry, I can't help with images of people yet. A",
]
NUMBERS = {"A": "1", "B": "10", "C": "100", "D": "2", "E": "20"}
NUMBER_CHOICES = [
  "E",
  "20",
  "1",
  "10",
  "100",
  "2",
  "It is 20.",
  "e",
  "(E)",
  "answer is E",
  "answer is 100",
  "The 2 dogs",
  "200",
]
VIDEO = [
  "A",
  "B.",
  "(C)",
  "D) it rains",
  "a",
  "The best answer is B",
  "The correct answer is: C",
  "The answer is D.",
  "Answer: A",
  "Option: B",
  "Best option: C",
  "Best answer: D",
  "The best option is A",
  "The correct option is B",
  "I do not know",
  "It could be any one of them, as far as one can tell from this",
  "",
  "E",
  "A dog, so B",
  "**C**",
  "Because of the rain: D",
  "The Answer: B",
  "(b)",
  "c.",
  "50% of them",
  "In 1999, A",
  "Yes. B",
]


def mme_rows() -> list[dict]:
  categories = [
    "OCR",
    "artwork",
    "celebrity",
    "color",
    "count",
    "existence",
    "landmark",
    "position",
    "posters",
    "scene",
    "code_reasoning",
    "commonsense_reasoning",
    "numerical_calculation",
    "text_translation",
  ]
  return [
    dict(
      index=6 * c + 2 * p + q,
      category=category,
      image_path=f"{category}/{p}.png",
      score=bool((c * p + q * c + p + (c > 6) * q) % 3),
    )
    for c, category in enumerate(categories)
    for p in range(3)
    for q in range(2)
  ]


def hallusion_rows() -> list[dict]:
  return [
    {
      "index": f"{kind}_{sub}_{with_picture}_{s}_{f}_{q}",
      "category": kind,
      "l2-category": sub,
      "score": bool((s * 7 + f * 3 + q * 5 + (kind == "VS") + len(sub)) % 4),
    }
    for kind, sub in (("VD", "illusion"), ("VD", "math"), ("VS", "chart"), ("VS", "map"))
    for with_picture in (1,)
    for s in range(3)
    for f in range(3)
    for q in range(2)
  ]


def pope_rows() -> list[dict]:
  categories = ["popular", "random", "adversarial", "popular,random", "adversarial,popular,random"]
  rows = []
  for number in range(40):
    answer, said = ("Yes", "No")[number % 2], ("Yes", "No", "Yes", "Unknown", "No", "No", "Yes")[number % 7]
    rows.append(dict(index=number, category=categories[number % 5], answer=answer, extracted=said, score=answer == said))
  return rows


def circular_rows() -> list[dict]:
  rows = []
  for question in range(8):
    options = ["red", "green", "blue", "grey"][: 3 + question % 2]
    for turn in range(len(options)):
      turned = options[turn:] + options[:turn]
      answer = "ABCD"[turned.index("red")]
      said = {
        0: answer,
        1: f"({answer})",
        2: "red",
        3: "A",
        4: answer if turn else "Z",
        5: "green",
        6: answer.lower(),
        7: f"{answer}. red",
      }[question]
      rows.append(
        dict(index=question + turn * 10**6, question="Which?", GT=answer, prediction=said, **dict(zip("ABCD", turned)))
      )
  return rows


MCQ = {"question": "Which animal is it?", "A": "cat", "B": "dog", "answer": "A"}
PROMPTS = [
  ("MME", {"question": "Is it a dog? Please answer yes or no.", "answer": "Yes"}),
  ("HallusionBench", {"question": "Is the line longer?", "answer": "No"}),
  ("POPE", {"question": "Is there a car?", "answer": "No"}),
  ("TextVQA_VAL", {"question": "what brand is it?", "answer": "nokia"}),
  ("ChartQA_TEST", {"question": "How many bars?", "answer": "4"}),
  ("OCRVQA_TESTCORE", {"question": "Who wrote it?", "answer": "x"}),
  ("AI2D_TEST", MCQ),
  ("RealWorldQA", {**MCQ, "C": "horse"}),
  ("ScienceQA_TEST", {**MCQ, "hint": "It barks."}),
  ("CCBench", {**MCQ, "question": "这是什么动物？", "A": "猫", "B": "狗"}),
  ("MMBench_DEV_EN", {**MCQ, "hint": "It barks.", "D": "none of them"}),
  ("RealWorldQA", {"question": "How many animals?", "answer": "2"}),
  ("Video-MME", {"question": "Which digit moves?", "candidates": "['A. one', 'B. two']", "answer": "A", "video": "x"}),
]
