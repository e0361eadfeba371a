#!/usr/bin/env python3
"""Writes tests/data/samplers.json: what each step of a sampler leaves of random logits, computed here in double precision
from the definitions of the steps alone.

  sampler_cases.py [FILE]
"""
import json
import math
import random
import sys

PENALTIES, DRY, TOP_N_SIGMA, TOP_K, TYPICAL, TOP_P, MIN_P, XTC, TEMPERATURE = range(9)
DEFAULTS = {
    "temperature": 1.0, "range": 0.0, "exponent": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0,
    "top_n_sigma": 0.0, "xtc_probability": 0.0, "xtc_threshold": 0.1, "repeat": 1.0, "frequency": 0.0, "presence": 0.0,
    "last_n": 64, "dry_multiplier": 0.0, "dry_base": 1.75, "dry_allowed": 2, "dry_last_n": 64, "breakers": [], "biases": [],
    "order": list(range(9)), "tau": 0.0, "eta": 0.1, "mu": None,
}


def softmax(left):
    most = max(left.values())
    parts = {token: math.exp(logit - most) for token, logit in left.items()}
    total = sum(parts.values())
    return {token: part / total for token, part in parts.items()}


def ranked(left):
    return sorted(left, key=lambda token: (-left[token], token))


def penalties(left, history, s):
    seen = history[-s["last_n"]:] if s["last_n"] else []
    for token in set(seen) & set(left):
        logit = left[token] / s["repeat"] if left[token] > 0 else left[token] * s["repeat"]
        left[token] = logit - seen.count(token) * s["frequency"] - s["presence"]
    return left


def dry(left, history, s):
    if not s["dry_multiplier"]:
        return left
    text = history[-s["dry_last_n"]:]
    # No sequence reaches back over a breaker: the nearest one to the end, its longest form.
    reach = len(text)
    for start in range(len(text) - 1, -1, -1):
        lengths = [len(b) for b in s["breakers"] if text[start:start + len(b)] == b]
        if lengths:
            reach = len(text) - start - max(lengths)
            break
    longest = {}
    for end in range(1, len(text)):
        length = 0
        while length < end and text[end - 1 - length] == text[-1 - length]:
            length += 1
        length = min(length, reach)
        if length >= s["dry_allowed"]:
            longest[text[end]] = max(longest.get(text[end], 0), length)
    for token, length in longest.items():
        if token in left:
            left[token] -= s["dry_multiplier"] * s["dry_base"] ** (length - s["dry_allowed"])
    return left


def top_n_sigma(left, s):
    n = s["top_n_sigma"]
    if not n:
        return left
    mean = sum(left.values()) / len(left)
    deviation = math.sqrt(sum((logit - mean) ** 2 for logit in left.values()) / len(left))
    least = max(left.values()) - n * deviation
    return {token: logit for token, logit in left.items() if logit >= least}


def typical(left, s):
    if s["typical_p"] >= 1:
        return left
    p = softmax(left)
    entropy = -sum(q * math.log(q) for q in p.values() if q > 0)
    order = sorted(left, key=lambda token: (abs(-math.log(p[token]) - entropy), token))
    kept, total = [], 0.0
    for token in order:
        kept.append(token)
        total += p[token]
        if total > s["typical_p"]:
            break
    return {token: left[token] for token in kept}


def top_p(left, s):
    if s["top_p"] >= 1:
        return left
    p, kept, total = softmax(left), {}, 0.0
    for token in ranked(left):
        kept[token] = left[token]
        total += p[token]
        if total >= s["top_p"]:
            break
    return kept


def xtc(left, s):
    if not s["xtc_probability"] or s["xtc_threshold"] > 0.5:
        return left
    p = softmax(left)
    above = [token for token in ranked(left) if p[token] >= s["xtc_threshold"]]
    return {token: logit for token, logit in left.items() if token not in above[:-1]}


def temperature(left, s):
    if not s["range"]:
        now = s["temperature"]
    else:
        low, high = max(0.0, s["temperature"] - s["range"]), s["temperature"] + s["range"]
        entropy = -sum(q * math.log(q) for q in softmax(left).values() if q > 0)
        now = low + (high - low) * (entropy / math.log(len(left))) ** s["exponent"] if len(left) > 1 else s["temperature"]
    if now == 0:
        token = ranked(left)[0]
        return {token: left[token]}
    return {token: logit / now for token, logit in left.items()}


def run(logits, history, settings):
    s = {**DEFAULTS, **settings}
    left = dict(enumerate(logits))
    for token, bias in s["biases"]:
        left[token] += bias
    steps = {
        PENALTIES: lambda left: penalties(left, history, s),
        DRY: lambda left: dry(left, history, s),
        TOP_N_SIGMA: lambda left: top_n_sigma(left, s),
        TOP_K: lambda left: {t: left[t] for t in ranked(left)[: s["top_k"] or None]},
        TYPICAL: lambda left: typical(left, s),
        TOP_P: lambda left: top_p(left, s),
        MIN_P: lambda left: {t: x for t, x in left.items() if x >= max(left.values()) + math.log(s["min_p"])} if s["min_p"] else left,
        XTC: lambda left: xtc(left, s),
        TEMPERATURE: lambda left: temperature(left, s),
    }
    for step in [TEMPERATURE] if s["tau"] else s["order"]:
        left = steps[step](left)
    moved = []
    if s["tau"]:
        mu = s["mu"] if s["mu"] is not None else 2 * s["tau"]
        p = softmax(left)
        left = {t: x for t, x in left.items() if -math.log2(p[t]) <= mu} or {ranked(left)[0]: 0.0}
        moved = [[t, mu - s["eta"] * (-math.log2(q) - s["tau"])] for t, q in softmax(left).items()]
    return sorted(softmax(left).items()), moved


def main():
    rng = random.Random(20)
    cases = []

    def case(name, settings, count=24, history=()):
        # As numbers of single precision have them, so that both sides begin with the same.
        logits = [round(rng.gauss(0, 2.5) * 1024) / 1024 for _ in range(count)]
        history = list(history)
        expected, moved = run(logits, history, settings)
        entry = {"name": name, "settings": settings, "logits": logits, "history": history,
                 "expected": [[t, float(f"{p:.8g}")] for t, p in expected]}
        if moved:
            entry["moved"] = [[t, round(mu, 7)] for t, mu in moved]
        cases.append(entry)

    text = [3, 4, 5, 6, 3, 4, 5, 7, 9, 3, 4, 5]
    for i in range(3):
        case(f"nothing {i}", {})
        case(f"temperature {i}", {"temperature": [0.0, 0.5, 1.75][i]})
        case(f"top-k {i}", {"top_k": [1, 5, 40][i]})
        case(f"top-p {i}", {"top_p": [0.0, 0.5, 0.93][i]})
        case(f"min-p {i}", {"min_p": [0.02, 0.2, 1.0][i]})
        case(f"typical {i}", {"typical_p": [0.1, 0.5, 0.95][i]})
        case(f"top-n-sigma {i}", {"top_n_sigma": [0.5, 1.0, 2.0][i]})
        case(f"xtc {i}", {"xtc_probability": 1.0, "xtc_threshold": [0.05, 0.2, 0.6][i]})
        case(f"dynamic temperature {i}", {"temperature": [1.0, 0.5, 0.8][i], "range": [0.5, 0.75, 0.3][i], "exponent": [1.0, 2.0, 0.5][i]})
        case(f"penalties {i}", {"repeat": [1.3, 1.0, 0.5][i], "frequency": [0.0, 0.75, -0.5][i], "presence": [0.0, 0.5, 1.25][i], "last_n": [4, 12, 64][i]}, history=text)
        case(f"dry {i}", {"dry_multiplier": [0.8, 2.0, 1.0][i], "dry_base": [1.75, 1.25, 3.0][i], "dry_allowed": [2, 1, 3][i]}, history=text)
        case(f"dry of fewer tokens {i}", {"dry_multiplier": 1.0, "dry_last_n": [5, 8, 10][i]}, history=text)
        case(f"dry with breakers {i}", {"dry_multiplier": 1.0, "dry_allowed": 1, "breakers": [[[4]], [[3, 4], [5, 8]], [[4, 5], [3]]][i]}, history=text)
        case(f"biases {i}", {"biases": [[2, 3.5], [7, -4.25], [2, 1.0]], "top_k": 6})
        case(f"mirostat {i}", {"tau": [1.0, 3.0, 5.0][i], "eta": 0.25, "temperature": [1.0, 0.7, 1.3][i]})
        case(f"mirostat on its way {i}", {"tau": 2.0, "mu": [0.1, 1.5, 4.0][i]})
    whole = {"repeat": 1.2, "frequency": 0.25, "presence": 0.125, "dry_multiplier": 0.8, "top_n_sigma": 2.5, "top_k": 40,
             "typical_p": 0.97, "top_p": 0.95, "min_p": 0.02, "xtc_probability": 1.0, "xtc_threshold": 0.15,
             "temperature": 0.8, "range": 0.2}
    for i in range(12):
        order = list(range(9))
        rng.shuffle(order)
        case(f"the whole chain {i}", whole, 200, text)
        case(f"in another order {i}", {**whole, "order": order}, 200, text)
        case(f"some steps {i}", {**whole, "order": order[: i % 9]}, 50, text)
    path = sys.argv[1] if len(sys.argv) > 1 else "tests/data/samplers.json"
    with open(path, "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in cases) + "\n]\n")


main()
