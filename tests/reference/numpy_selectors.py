"""Every selector as a plain loop over one row's real tokens, in float64: what hawk_jax.selectors is tested against.

A rule is a function (features [n, D], scores [n], count, **needed) to the tokens that it keeps, in the order of its picks. A
merge has the tokens kept as one argument more, and gives for each token the one that it joins, or -1.
"""

from __future__ import annotations

import math

import numpy as np

GROUP = 128
PIVOTS = 8


def unit(features):
  return features / np.maximum(np.linalg.norm(features, axis=-1, keepdims=True), 1e-12)


def cosines_of(features):
  return unit(features) @ unit(features).T


def relevance_of(scores):
  return (scores - scores.min()) / max(scores.max() - scores.min(), float(np.finfo(np.float32).eps))


def best_of(values, allowed):
  """The first of those allowed whose value is the largest, up to rounding in float32."""
  largest = max(values[i] for i in allowed)
  return next(i for i in sorted(allowed) if values[i] >= largest - 2e-6 * abs(largest) or values[i] == largest)


def greedy(number, count, value):
  """Picks by `value`, a function of the picks so far to a value of each of `number` tokens."""
  picks = []
  while len(picks) < count:
    picks.append(best_of(value(picks), [i for i in range(number) if i not in picks]))
  return picks


def ranked(scores, count):
  return sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:count]


def hawk(features, scores, count):
  del features
  return ranked(scores, count)


def divprune(features, scores, count):
  del scores
  distance = 1 - cosines_of(features)
  others = distance + np.where(np.eye(len(features)), np.inf, 0)
  return greedy(
    len(features), count, lambda picks: distance[:, picks].min(axis=1) if picks else others.min(axis=1, initial=np.inf)
  )


def hawk_mmr(features, scores, count):
  relevance, cosine = relevance_of(scores), cosines_of(features)
  value = lambda picks: 0.5 * relevance - 0.5 * cosine[:, picks].max(axis=1) if picks else relevance
  return greedy(len(features), count, value)


def zooprune(features, scores, count):
  relevance, cosine = relevance_of(scores), cosines_of(features)
  return greedy(len(features), count, lambda picks: relevance * (1 - cosine[:, picks].max(axis=1)) if picks else relevance)


def residuals(kernel, picks):
  """What the tokens picked leave of the kernel's diagonal: a ratio of determinants."""
  if not picks:
    return np.diagonal(kernel).copy()
  inverse = np.linalg.pinv(kernel[np.ix_(picks, picks)], rcond=1e-9, hermitian=True)
  found = np.diagonal(kernel) - np.einsum("ni,ij,nj->n", kernel[:, picks], inverse, kernel[:, picks])
  return np.where(found > 1e-6 * np.diagonal(kernel), found, 0.0)


def dpp(features, scores, count):
  relevance = relevance_of(scores)
  kernel = relevance[:, None] * cosines_of(features) * relevance
  return greedy(len(features), count, lambda picks: residuals(kernel, picks))


def coin(features, scores, count, question):
  del scores
  information = 0.5 * relevance_of(np.linalg.norm(features, axis=-1)) + 0.5 * relevance_of(unit(features) @ unit(question))
  kernel = cosines_of(features) + np.eye(len(features))
  return greedy(
    len(features), count, lambda picks: 0.5 * information + 0.5 * np.log(np.maximum(residuals(kernel, picks), 1e-12))
  )


def covers(cosine, picks, start):
  return np.max(cosine[:, picks], axis=1, initial=start)


def gains(cosine, picks, start):
  """[n] how much each token would raise the covers of those that are not picked."""
  left = [j for j in range(len(cosine)) if j not in picks]
  return np.maximum(cosine[:, left] - covers(cosine, picks, start)[left], 0).sum(axis=1)


def tops(features, scores, count, scale=False):
  relevance, cosine = relevance_of(scores) if scale else scores, cosines_of(features)

  def value(picks):
    if not picks:
      return relevance
    left = [i for i in range(len(scores)) if i not in picks]
    share = lambda values: values / max(values[left].mean(), 1e-6)
    diversity = 1 - covers(cosine, picks, -1.0)
    return share(relevance) + 0.5 * share(diversity) + 0.4 * share(gains(cosine, picks, -1.0))

  return greedy(len(features), count, value)


def scope(features, scores, count, scale=False):
  weight, cosine = relevance_of(scores) if scale else scores, cosines_of(features)
  return greedy(len(features), count, lambda picks: weight * gains(cosine, picks, 0.0))


def qaprune(features, scores, count):
  error, spread = np.zeros(len(features)), np.zeros(len(features))
  for token, vector in enumerate(features):
    groups = [vector[start : start + GROUP] for start in range(0, len(vector), GROUP)]
    groups[-1] = np.pad(groups[-1], (0, GROUP - len(groups[-1])), mode="edge")
    for group in groups:
      levels = np.linspace(group.min(), group.max(), 16)
      nearest = np.abs(group[:, None] - levels).min(axis=1)
      error[token] += np.mean(nearest**2) / len(groups)
      spread[token] += np.ptp(group) / len(groups)
  sensitivity = (relevance_of(error) + relevance_of(spread)) / 2
  return ranked(0.5 * relevance_of(scores) + 0.5 * sensitivity, count)


def evs(features, scores, count, places):
  del scores
  change = np.full(len(features), np.inf)
  for token, place in enumerate(places):
    earlier = [other for other in range(token) if places[other] == place]
    if earlier:
      change[token] = 1 - unit(features[token]) @ unit(features[earlier[-1]])
  return ranked(change, count)


def parts(curve, count):
  """The tokens in the order of the curve, in `count` parts of equal length, up to one."""
  order = sorted(range(len(curve)), key=lambda i: curve[i])
  cuts = [math.ceil(number * len(order) / count) for number in range(count + 1)]
  return [order[start:stop] for start, stop in zip(cuts, cuts[1:])]


def grid(features, scores, count, curve):
  del features, scores
  return [part[(len(part) - 1) // 2] for part in parts(curve, count)] if count else []


def pool(features, scores, count, kept, curve):
  del features, scores
  joined = np.full(len(curve), -1)
  for part in parts(curve, count) if count else []:
    joined[part] = next(token for token in part if token in kept)
  return joined


def dart(features, scores, count):
  pivots = ranked(scores, min(PIVOTS, count))
  chosen = list(pivots)
  for pivot in pivots:
    wanted = min(math.ceil((count - len(pivots)) / len(pivots)), count - len(chosen))
    cosine = unit(features) @ unit(features[pivot])
    left = [i for i in range(len(features)) if i not in chosen]
    chosen += sorted(left, key=lambda i, cosine=cosine: (cosine[i], i))[:wanted]
  return chosen


def visionzip(features, scores, count):
  dominant, contextual = _visionzip(scores, count)
  return dominant + contextual


def visionzip_merge(features, scores, count, kept):
  del kept
  dominant, contextual = _visionzip(scores, count)
  joined = nearest(features, contextual)
  joined[dominant] = dominant
  return joined


def _visionzip(scores, count):
  number = min(max(round(count * 10 / 64), 1), count)
  dominant = ranked(scores, count - number)
  rest = [i for i in range(len(scores)) if i not in dominant]
  return dominant, rest[:: max(len(rest) // max(number, 1), 1)][:number]


def nearest(features, centers):
  """For each token the center of the largest cosine; -1 without centers."""
  if not len(centers):
    return np.full(len(features), -1)
  centers, cosine = sorted(centers), cosines_of(features)
  joined = np.asarray([centers[best_of(row[centers], range(len(centers)))] for row in cosine])
  joined[centers] = centers
  return joined


def average(features, joined, kept):
  """[kept, D]."""
  return np.stack([features[joined == token].mean(axis=0) for token in kept])


def sinks(features, share):
  return ranked(np.linalg.norm(features, axis=-1), math.ceil(len(features) * share - 1e-6))


def region_floor(scores, curve, count, share):
  number = math.floor(count * share + 1e-4)
  return [max(part, key=lambda i: (scores[i], -i)) for part in parts(curve, number)] if number else []


RULES = {
  "hawk": hawk,
  "sepprune": hawk,
  "grid": grid,
  "pool": grid,
  "divprune": divprune,
  "hawk+dpp": dpp,
  "cdpruner": dpp,
  "hawk+mmr": hawk_mmr,
  "qaprune": qaprune,
  "hawk+tops": lambda *args: tops(*args, scale=True),
  "tops": tops,
  "hawk+scope": lambda *args: scope(*args, scale=True),
  "scope": scope,
  "coin": coin,
  "zooprune": zooprune,
  "dart": dart,
  "visionzip": visionzip,
  "evs": evs,
  "fastv": hawk,
}
