"""Tables and a plot of what `experiments.benchmark` measured."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from experiments.reporting import figures
from experiments.reporting import tables


class _Measured:
  """A report's seconds, by the names that `experiments.benchmark` gives them."""

  def __init__(self, report: dict[str, Any]):
    self.seconds, self.steps = report["seconds"], report["steps"]
    self.baselines = report["baselines"]

  def median(self, name: str) -> float:
    return float(np.median(self.seconds[name]))

  def best(self, name: str) -> float:
    return min(self.seconds[name])

  def step(self, name: str) -> float:
    """Seconds of one decoding step."""
    return self.median(name) / self.steps

  def decodings(self, baseline: str) -> list[str]:
    """What a baseline's ways to decode end in; CUDA graphs are measured on GPUs only."""
    return [way for way in ("", ", CUDA graphs") if f"{baseline} decode 1{way}" in self.seconds]

  def spread(self, name: str) -> str:
    """Milliseconds: the median, the smallest and the largest."""
    low, high = min(self.seconds[name]), max(self.seconds[name])
    return f"{1e3 * self.median(name):.1f} ({1e3 * low:.0f} to {1e3 * high:.0f})"


def summarize(report: dict[str, Any]) -> str:
  """Markdown: seconds by keep ratio, beside the baseline's where there is one, and shares of the machine's limits."""
  measured = _Measured(report)
  mesh = f" (mesh {report['mesh']})" if report.get("mesh") else ""
  return "\n".join(
    [
      f"{report['config']}, {report['dtype']}, {report['visual_tokens']} visual and {report['text_tokens']} text tokens; "
      f"{report['device']}{mesh}, {report['date']}; {report['versions']}. Milliseconds: median (smallest to largest) of "
      f"{report['rounds']} rounds.",
      "",
      *_stages(report, measured),
      "",
      "The rest of the first token: what its time and that of the three stages differ by, such as the allocation of the KV "
      "cache. KV cache bytes: 2 x layers x slots x key/value heads x head dim x bytes per element.",
      "",
      *_shares(report, measured),
      "",
      *_staged(report, measured),
      *_batches(report, measured),
      "",
      *_notes(report, measured),
    ]
  )


def _stages(report, measured) -> list[str]:
  """Seconds and bytes of every stage, by keep ratio."""
  columns = [
    "kept",
    "tokens",
    "first token",
    "vision",
    "scoring + compaction",
    "language prefill",
    "rest",
    "decoding, per token",
    f"whole answer ({report['steps'] + 1} tokens)",
    "KV cache, MB",
    "temporaries, MB",
    "process at its peak, MB",
    "compilation, s",
  ]
  for baseline in measured.baselines:
    columns += [
      f"{baseline}: first token",
      "times ours",
      *(name for way in measured.decodings(baseline) for name in (f"decoding{way}, per token", "times ours")),
    ]
  rows = []
  for case in report["cases"]:
    name = f"{case['keep_ratio']:g}"
    first, step = measured.median(f"first_token {name}"), measured.step(f"decode {name}")
    rest = first - sum(map(measured.median, ("vision", f"prune {name}", f"language {name}")))
    row = [
      name,
      case["tokens"],
      measured.spread(f"first_token {name}"),
      measured.spread("vision"),
      measured.spread(f"prune {name}"),
      measured.spread(f"language {name}"),
      f"{1e3 * rest:.1f}",
      f"{1e3 * step:.2f}",
      measured.spread(f"answer {name}"),
      f"{case['cache_bytes'] / 1e6:.1f}",
      f"{max(value or 0 for value in case['temporary_bytes'].values()) / 1e6:.0f}",
      _megabytes(case["peak_bytes"]),
      f"{sum(case['compile_seconds'][stage] for stage in ('vision', 'prefill', 'decode')):.1f}",
    ]
    for baseline in measured.baselines:
      row += [
        measured.spread(f"{baseline} first_token {name}"),
        f"{measured.median(f'{baseline} first_token {name}') / first:.2f}",
      ]
      for way in measured.decodings(baseline):
        other = measured.step(f"{baseline} decode {name}{way}")
        row += [f"{1e3 * other:.2f}", f"{other / step:.2f}"]
    rows.append(row)
  return tables.table(columns, rows, left=0)


def _megabytes(peak: dict[str, int | None]) -> str:
  """The device's memory where it counts it, else the process's."""
  value = peak["device"] or peak["process"]
  return "-" if value is None else f"{value / 1e6:.0f}"


def check_limits(report: dict[str, Any]) -> None:
  """Checks that no stage is faster than the machine's limits, which would then be none.

  Raises:
    ValueError: for such a stage.
  """
  shares = _shares_of_limits(report, _Measured(report))
  if above := {name: f"{100 * share:.0f} %" for name, share in shares.items() if not share <= 1}:
    raise ValueError(f"limits: stages are faster than the machine's limits, which must be measured better: {above}")


def _shares_of_limits(report, measured) -> dict[str, float]:
  """The best round of each stage beside the machine's limit, which is the best of any round too."""
  products, reading = report["matmul_flops_per_second"], report["bandwidth_bytes_per_second"]
  shares = {"vision": report["vision_flops"] / measured.best("vision") / products}
  for case in report["cases"]:
    name = f"{case['keep_ratio']:g}"
    shares[f"language prefill {name}"] = case["language_flops"] / measured.best(f"language {name}") / products
    shares[f"decoding {name}"] = case["decode_bytes"] * report["steps"] / measured.best(f"decode {name}") / reading
  return shares


def _shares(report, measured) -> list[str]:
  """What pruning saves, and how close each stage is to the machine's limits."""
  percent = lambda value: f"{100 * value:.1f} %"
  whole = report["cases"][0]
  answer = measured.median("answer 1")
  limits = _shares_of_limits(report, measured)
  rows = []
  for case in report["cases"]:
    name = f"{case['keep_ratio']:g}"
    language = measured.median(f"language {name}")
    time_ratio = language / measured.median("language 1")
    flop_ratio = case["language_flops"] / whole["language_flops"]
    rows.append(
      [
        name,
        f"{time_ratio:.3f}",
        f"{flop_ratio:.3f}",
        f"{time_ratio / flop_ratio:.2f}",
        percent(measured.median(f"prune {name}") / measured.median(f"prefill {name}")),
        f"{100 * limits[f'language prefill {name}']:.0f} %",
        f"{100 * limits[f'decoding {name}']:.0f} %",
        percent(measured.median(f"first_token {name}") / measured.median("first_token 1")),
        percent(measured.median(f"answer {name}") / answer),
        percent((measured.median("vision") + measured.median(f"decode {name}")) / answer),
      ]
    )
  return tables.table(
    [
      "kept",
      "language time, share of unpruned",
      "FLOPs, share",
      "time over FLOPs",
      "scoring, share of prefill",
      "language, share of matmul rate",
      "decoding, share of bandwidth",
      "first token, share of unpruned",
      "whole answer, share of unpruned",
      "if language prefill took no time",
    ],
    rows,
    left=0,
  )


def _staged(report, measured) -> list[str]:
  """Schedules beside the unpruned prompt, in the same rounds."""
  if not report.get("staged"):
    return []
  rows = []
  for case in report["staged"]:
    name = case["stages"]
    share = lambda stage, name=name: f"{measured.median(f'{stage} {name}') / measured.median(f'{stage} 1'):.3f}"
    rows.append(
      [
        case["resolved"],
        f"{case['mean_share']:.3g}",
        f"{case['tower_share']:.3g}",
        measured.spread(f"first_token {name}"),
        share("first_token"),
        measured.spread(f"vision {name}"),
        f"{measured.median(f'vision {name}') / measured.median('vision'):.3f}",
        measured.spread(f"prefill {name}"),
        f"{1e3 * measured.step(f'decode {name}'):.2f}",
        measured.spread(f"answer {name}"),
        share("answer"),
        f"{case['cache_bytes'] / 1e6:.1f}",
      ]
    )
  columns = ["stages", "visual tokens per layer, mean share", "per tower block", "first token", "share of unpruned"]
  columns += [
    "vision",
    "share of unpruned",
    "prefill",
    "decoding, per token",
    "whole answer",
    "share of unpruned",
    "KV cache, MB",
  ]
  return [*tables.table(columns, rows), ""]


def _batches(report, measured) -> list[str]:
  """Batches of prompts with pictures of one size, beside a single prompt, at the first keep ratio."""
  if not report["batch_sizes"]:
    return []
  pruned = f"{report['cases'][min(1, len(report['cases']) - 1)]['keep_ratio']:g}"
  columns, rows = [f"{pruned} kept", "first token", "decoded tokens per second"], []
  for baseline in measured.baselines:
    columns += [f"{baseline}: first token", *(f"decoded{way}" for way in measured.decodings(baseline))]
  for size, name in [(1, pruned), *((size, f"x{size}") for size in report["batch_sizes"])]:
    row = [f"batch of {size}", measured.spread(f"first_token {name}"), f"{size / measured.step(f'decode {name}'):.1f}"]
    for baseline in measured.baselines:
      row.append(measured.spread(f"{baseline} first_token {name}"))
      row += [f"{size / measured.step(f'{baseline} decode {name}{way}'):.1f}" for way in measured.decodings(baseline)]
    rows.append(row)
  return tables.table(columns, rows)


def _notes(report, measured) -> list[str]:
  """The machine's limits, batches, and what was checked."""
  rate, bandwidth = report["matmul_flops_per_second"], report["bandwidth_bytes_per_second"]
  floor, steps = report["vision_flops"] / rate, report["steps"]
  machine = "All devices of the mesh together" if report.get("mesh") else "This machine"
  lines = [
    f"{machine}: matrix products at {rate / 1e9:.0f} GFLOP/s, memory read at {bandwidth / 1e9:.1f} GB/s. Vision: "
    f"{report['vision_flops'] / 1e9:.0f} GFLOP, at best {1e3 * floor:.0f} ms, "
    f"{100 * _shares_of_limits(report, measured)['vision']:.0f} % of that rate. Shares of limits: the best "
    "round of each stage beside the best of the limits.",
    "The paper reports 74.4 % of the unpruned latency for Qwen2.5-VL-7B with 19.8 % kept; the last two columns are ours "
    "for a whole answer, and what would be left if the language prefill took no time.",
  ]
  text = (
    f"Four pictures of different sizes in one batch, {steps + 1} tokens each: {4 / measured.median('batch'):.2f} samples/s"
  )
  text += f"; one by one {4 / measured.median('one by one'):.2f}"
  for baseline in measured.baselines:
    ratio = measured.median(f"{baseline} batch") / measured.median("batch")
    text += f"; {baseline} one by one {4 / measured.median(f'{baseline} batch'):.2f}, {ratio:.2f} times the batch's seconds"
  lines.append(text + ".")
  if report["checks"]:
    checks = "; ".join(
      f"{check['baseline']}, kept {check['case']}: logits differ by {check['largest_logit_error']:.1e} of the largest, "
      f"{check['equal_tokens']} of {check['of']} tokens are equal" + _gap(check)
      for check in report["checks"]
    )
    lines.append(f"Outputs, compared before: {checks}.")
  return lines


def _gap(check) -> str:
  return "" if check["gap"] is None else f" (the first two that differ, by {check['gap']:.1e} of the largest logit)"


def plot(path: pathlib.Path, report: dict[str, Any]) -> None:
  """Seconds to the first token against the share kept, with the line that FLOPs alone would give."""
  cases, measured = report["cases"], _Measured(report)
  shares = [case["keep_ratio"] for case in cases]
  firsts = lambda prefix: [measured.median(f"{prefix}first_token {share:g}") for share in shares]
  lines = {"ours": firsts("")}
  for baseline in measured.baselines:
    lines[baseline] = firsts(f"{baseline} ")
  work = [report["vision_flops"] + case["language_flops"] for case in cases]
  lines["ours, if time followed FLOPs"] = [lines["ours"][0] * some / work[0] for some in work]
  points = {
    name: [(100 * share, value, value, value) for share, value in zip(shares, values)] for name, values in lines.items()
  }
  figures.save(path, figures.curves([figures.Panel("", points)], "seconds to the first token"))
