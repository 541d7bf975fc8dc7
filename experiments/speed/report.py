"""Tables and a plot of what `experiments.benchmark` measured."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from experiments import figures


def summarize(report: dict[str, Any]) -> str:
  """Markdown: seconds by keep ratio, beside the baseline's where there is one, and shares of the machine's limits."""
  seconds, cases = report["seconds"], report["cases"]
  median = lambda name: float(np.median(seconds[name]))
  baseline = "torch vision" in seconds
  spread = lambda name: f"{1e3 * median(name):.1f} ({1e3 * min(seconds[name]):.0f} to {1e3 * max(seconds[name]):.0f})"
  steps, whole = report["steps"], cases[0]
  first_whole, language_whole = median("first_token 1"), median("language 1")

  lines = [
      f"{report['config']}, {report['dtype']}, {report['visual_tokens']} visual and {report['text_tokens']} text tokens; "
      f"{report['device']}, {report['date']}; {report['versions']}. Milliseconds: median (least to most) of "
      f"{report['rounds']} rounds.", ""]
  columns = ["kept", "tokens", "first token", "vision", "scoring + compaction", "language prefill", "decode a token",
             f"whole answer ({steps + 1} tokens)", "KV cache, MB", "temporaries, MB", "compile, s"]
  if baseline:
    columns += ["transformers: first token", "times ours", "decode a token", "times ours"]
  rows = []
  for case in cases:
    name = f"{case['keep_ratio']:g}"
    row = [name, case["tokens"], spread(f"first_token {name}"), spread("vision"), spread(f"prune {name}"),
           spread(f"language {name}"), f"{1e3 * median(f'decode {name}') / steps:.2f}", spread(f"answer {name}"),
           f"{case['cache_bytes'] / 1e6:.1f}",
           f"{max(value or 0 for value in case['temporary_bytes'].values()) / 1e6:.0f}",
           f"{sum(case['compile_seconds'][stage] for stage in ('vision', 'prefill', 'decode')):.1f}"]
    if baseline:
      first, step = median(f"torch first_token {name}"), _torch_step(report, name)
      row += [spread(f"torch first_token {name}"), f"{first / median(f'first_token {name}'):.2f}", f"{1e3 * step:.2f}",
              f"{step * steps / median(f'decode {name}'):.2f}"]
    rows.append(row)
  lines += _table(columns, rows) + [""]

  rate, bandwidth = report["matmul_flops_per_second"], report["bandwidth_bytes_per_second"]
  rows = []
  for case in cases:
    name = f"{case['keep_ratio']:g}"
    time_ratio = median(f"language {name}") / language_whole
    flop_ratio = case["language_flops"] / whole["language_flops"]
    rows.append([
        name, f"{time_ratio:.3f}", f"{flop_ratio:.3f}", f"{time_ratio / flop_ratio:.2f}",
        f"{100 * median(f'prune {name}') / median(f'prefill {name}'):.1f} %",
        f"{100 * case['language_flops'] / median(f'language {name}') / rate:.0f} %",
        f"{100 * case['decode_bytes'] * steps / median(f'decode {name}') / bandwidth:.0f} %",
        f"{100 * median(f'first_token {name}') / first_whole:.1f} %",
        f"{100 * median(f'answer {name}') / median('answer 1'):.1f} %",
        f"{100 * (median('vision') + median(f'decode {name}')) / median('answer 1'):.1f} %"])
  lines += _table(["kept", "language time, share of unpruned", "FLOPs, share", "time over FLOPs", "scoring of prefill",
                   "language, of matmul rate", "decode, of bandwidth", "first token, of unpruned",
                   "whole answer, of unpruned", "if language prefill were free"], rows)
  floor = report["vision_flops"] / rate
  lines += ["", f"This machine: matrix products at {rate / 1e9:.0f} GFLOP/s, {bandwidth / 1e9:.1f} GB/s read. "
            f"Vision: {report['vision_flops'] / 1e9:.0f} GFLOP, at best {1e3 * floor:.0f} ms, "
            f"{100 * floor / median('vision'):.0f} % of that rate."]
  lines += ["The paper reports 74.4 % of the unpruned latency for Qwen2.5-VL-7B with 19.8 % kept; the last two columns are "
            "ours for a whole answer, and what would be left if the language prefill took no time."]
  lines += ["KV cache bytes: 2 x layers x slots x key/value heads x head dim x bytes an element."]
  if "batch" in seconds:
    text = f"Four pictures of unlike sizes in one batch, {steps + 1} tokens each: {4 / median('batch'):.2f} samples/s"
    if baseline and "torch batch" in seconds:
      ratio = median("torch batch") / median("batch")
      text += f"; transformers one by one {4 / median('torch batch'):.2f}, {ratio:.2f} times ours"
    lines.append(text + ".")
  pruned = f"{cases[1]['keep_ratio']:g}" if len(cases) > 1 else "1"
  speeds = [f"{steps / median(f'decode {pruned}'):.1f} at batch 1"]
  speeds += [f"{size * steps / median(f'decode x{size}'):.1f} at batch {size}" for size in (4, 8)
             if f"decode x{size}" in seconds]
  lines.append(f"Decoded tokens a second, keep {pruned}: {', '.join(speeds)}.")
  if report["checks"]:
    checks = ", ".join(f"keep {check['case']}: logits off by {check['largest_logit_error']:.1e}, {check['equal_tokens']} of "
                       f"{check['of']} tokens equal" for check in report["checks"])
    lines.append(f"Checked against transformers first: {checks}.")
  return "\n".join(lines)


def plot(path: pathlib.Path, report: dict[str, Any]) -> None:
  """Seconds to the first token against the kept share, with the line that FLOPs alone would give."""
  cases, seconds = report["cases"], report["seconds"]
  shares = [case["keep_ratio"] for case in cases]
  names = [f"{share:g}" for share in shares]
  lines = {"ours": [np.median(seconds[f"first_token {name}"]) for name in names]}
  if "torch vision" in seconds:
    lines["transformers"] = [np.median(seconds[f"torch first_token {name}"]) for name in names]
  work = [report["vision_flops"] + case["language_flops"] for case in cases]
  lines["ours, if time followed FLOPs"] = [lines["ours"][0] * some / work[0] for some in work]
  figures.lines(path, shares, lines, "share of visual tokens kept", "seconds to the first token")


def _torch_step(report, name) -> float:
  return float(np.median(report["seconds"][f"torch decode {name}"])) / report["steps"]


def _table(columns, rows) -> list[str]:
  return ["| " + " | ".join(columns) + " |", "|" + "---:|" * len(columns)] + [
      "| " + " | ".join(map(str, row)) + " |" for row in rows]
