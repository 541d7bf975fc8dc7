"""Tables of what `experiments.compile_tpu` read from compiled programs."""

from __future__ import annotations

from typing import Any

from experiments.reporting import tables

_SHORT = {
  "all-gather": "gather",
  "all-reduce": "reduce",
  "reduce-scatter": "reduce-scatter",
  "all-to-all": "all-to-all",
  "ragged-all-to-all": "ragged",
  "collective-permute": "permute",
}


def summarize(report: dict[str, Any]) -> str:
  """Markdown: memory and seconds of every program, and prefill at each keep ratio beside its FLOPs."""
  chip, rows = report["chip"], report["programs"]
  mesh = ", ".join(f"{axis} {size}" for axis, size in report["mesh"].items() if size > 1) or "one chip"
  needed = max(row["needed_bytes"] for row in rows)
  verdict = "fits" if all(row["fits"] for row in rows) else "does not fit"
  lines = [
    f"{report['model_config']} ({report['parameters'] / 1e9:.2f} billion parameters), {report['dtype']}, on "
    f"{report['topology']} ({mesh}): batch {report['batch']}, {report['visual_tokens']} visual and "
    f"{report['text_tokens']} text tokens, {report['max_new_tokens']} new ones. Compiled in "
    f"{report['wall_seconds']:.0f} s on {report['device']}, {report['date']}; {report['versions']}.",
    "",
    f"It {verdict}: at most {needed / 1e9:.1f} of {chip['memory'] / 1e9:.0f} GB per chip.",
    "",
  ]
  columns = [
    "program",
    "kept",
    "tokens",
    "GB per chip: weights",
    "cache",
    "temporaries",
    "needed",
    "predicted, ms",
    "compute",
    "memory",
    "links",
    "messages, MB per chip",
    "compilation, s",
  ]
  lines += [*tables.table(columns, [_row(row) for row in rows]), ""]
  vision, prefills = rows[0], [row for row in rows if row["program"] == "prefill" and "stages" not in row]
  if all("predicted_seconds" in row for row in [vision, *prefills]):
    lines += _ratios(vision, prefills)
  if any("stages" in row for row in rows) and all("predicted_seconds" in row for row in rows):
    lines += _first_tokens(rows)
  lines.append(
    f"Predicted: the larger of FLOPs at {chip['flops'] / 1e12:.0f} TFLOP/s and bytes at {chip['bandwidth'] / 1e9:.0f} "
    f"GB/s, plus messages at {chip['interconnect'] / 1e9:.0f} GB/s. These are published peaks, so it is a lower bound. "
    "Decoding is one step. Needed: all weights, inputs, results and temporaries."
  )
  return "\n".join(lines)


def _row(row) -> list[str]:
  gigabytes = lambda name: f"{row[name] / 1e9:.2f}"
  start = [
    row["program"],
    _kept(row),
    row.get("tokens", ""),
    gigabytes("weights_bytes"),
  ]
  if "seconds" not in row:
    needed, compiling = f"{gigabytes('needed_bytes')}: does not fit", f"{row['compile_seconds']:.0f}"
    return start + ["", "", needed, "", "", "", "", "", compiling]
  known = row["collectives"]
  messages = (
    "unknown"
    if known is None
    else ", ".join(f"{count} {_SHORT[kind]} {moved / 1e6:.1f}" for kind, (count, moved) in known.items())
  )
  seconds = [f"{1e3 * value:.1f}" for value in (row["predicted_seconds"], *row["seconds"].values())]
  return start + [
    gigabytes("cache_bytes"),
    gigabytes("temporaries"),
    gigabytes("needed_bytes") + ("" if row["fits"] else ": does not fit"),
    *seconds[:-1],
    "unknown" if known is None else seconds[-1],
    messages or "none",
    f"{row['compile_seconds']:.0f}",
  ]


def _kept(row) -> str:
  """What a program keeps: a schedule, or the share that enters the decoder."""
  return row.get("stages") or (f"{row['keep_ratio']:g}" if "keep_ratio" in row else "")


def _first_tokens(rows) -> list[str]:
  """Vision and prefill together, of every share and every schedule."""
  visions = {row.get("stages"): row for row in rows if row["program"] == "vision"}
  prefills = [row for row in rows if row["program"] == "prefill"]
  seconds = [visions[row.get("stages")]["predicted_seconds"] + row["predicted_seconds"] for row in prefills]
  cells = [[_kept(row), f"{1e3 * time:.1f}", f"{time / seconds[0]:.3f}"] for row, time in zip(prefills, seconds)]
  return tables.table(["kept", "vision and prefill, ms", f"share of the time at {_kept(prefills[0])}"], cells) + [""]


def _ratios(vision, prefills) -> list[str]:
  """What pruning saves of the language model's prefill, and of all that precedes the first token."""
  whole = prefills[0]["keep_ratio"]
  columns = ["kept", "tokens"]
  rows = [[f"{row['keep_ratio']:g}", row["tokens"]] for row in prefills]
  for name, before in (("prefill", []), ("vision and prefill", [vision])):
    columns += [f"{name}, ms", f"share of that at {whole:g}", "FLOPs, share"]
    seconds, flops = (
      [sum(part[key] for part in [*before, row]) for row in prefills] for key in ("predicted_seconds", "model_flops")
    )
    for row, time, work in zip(rows, seconds, flops):
      row += [f"{1e3 * time:.1f}", f"{time / seconds[0]:.3f}", f"{work / flops[0]:.3f}"]
  return tables.table(columns, rows, left=0) + [""]
