#!/usr/bin/env python3
"""Generates JSON by schemas and has every text validated by the package jsonschema.

    constraints.py MODEL...             every fourth of 100 schemas; the library is found as by bindings/python
    constraints.py --all MODEL...       all of them
    constraints.py --measure MODEL...   what masks take, and passes by tokens at a quarter of the file
"""

import functools
import json
import pathlib
import random
import sys
import time

root = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(root / "bindings/python"))

import layerline  # noqa: E402

COUNT = 100

LEAVES = [
    {"type": "string", "maxLength": 12},
    {"type": "string", "minLength": 2, "maxLength": 6},
    {"type": "string", "pattern": "^[A-Z][a-z]{2,6}$"},
    {"type": "string", "pattern": "^[0-9]{3}-[0-9]{4}$"},
    {"type": "string", "format": "date"},
    {"type": "string", "format": "ipv4"},
    {"enum": ["red", "green", "dark blue", "\u00e9t\u00e9", "a \"quoted\" word"]},
    {"enum": [1, "one", None, True, [1, 2]]},
    {"const": {"kind": "fixed", "version": 2}},
    {"type": "integer", "minimum": 0, "maximum": 120},
    {"type": "integer", "minimum": -40, "exclusiveMaximum": 40, "multipleOf": 5},
    {"type": "boolean"},
    {"type": "null"},
    {"type": ["boolean", "null"]},
    {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 9}, {"type": "null"}]},
]

NAMES = ["name", "age", "first name", "city", "\u00fcber", "is_active", "items", "score", "tags", "id", "a/b", "note"]


def schema(rng, depth=0):
    """A schema whose texts are short."""
    kind = rng.choice(["object", "object", "array", "tuple", "leaf"] if depth < 2 else ["leaf"])
    if kind == "leaf":
        return rng.choice(LEAVES)
    if kind == "array":
        least = rng.randint(0, 2)
        return {"type": "array", "items": schema(rng, depth + 1), "minItems": least, "maxItems": least + rng.randint(0, 1)}
    if kind == "tuple":
        items = [schema(rng, depth + 1) for _ in range(rng.randint(1, 3))]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "items": False}
    names = rng.sample(NAMES, rng.randint(1, 4))
    members = {name: schema(rng, depth + 1) for name in names}
    required = [name for name in names if rng.random() < 0.8]
    return {"type": "object", "properties": members, "required": required, "additionalProperties": False}


def schemas():
    yield {"$ref": "#/$defs/pair", "$defs": {"pair": {"type": "array", "prefixItems": [LEAVES[9], {"$ref": "#/$defs/end"}],
                                                     "minItems": 2, "items": False}, "end": LEAVES[6]}}
    yield {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 17}]}
    yield {"oneOf": [{"type": "object", "properties": {"kind": {"const": kind}}, "required": ["kind"],
                      "additionalProperties": False} for kind in ("cat", "dog")]}
    for seed in range(COUNT - 3):
        yield schema(random.Random(seed))


def budget(path, share):
    """That share of the file, or the least for a session, a constraint and the logits of forced tokens."""
    size = pathlib.Path(path).stat().st_size
    floor = layerline.plan(path, layerline.Options(context_length=512)).floor_bytes
    return int(max(size * share, floor + (64 + 17 * 4) * layerline.Model(path).info().vocab_size))


def prompt_for(model, given):
    return model.tokenize(f"An example of JSON for the schema {json.dumps(given)}:\n", bos=True)


def validate(path, every=4):
    import jsonschema

    model = layerline.Model(path, layerline.Options(context_length=1024))
    began, count, tokens, passes = time.monotonic(), 0, 0, 0
    for number, given in list(enumerate(schemas()))[::every]:
        jsonschema.Draft202012Validator.check_schema(given)
        constraint = layerline.Constraint(model, layerline.ConstraintKind.JSON_SCHEMA, json.dumps(given))
        generation = layerline.Generation(max_tokens=300, constraint=constraint)
        sampler = layerline.Sampler(temperature=0.8, seed=number)
        text = layerline.Session(model).generate(prompt_for(model, given), generation=generation, sampler=sampler)
        stats = generation.stats()
        count, tokens, passes = count + 1, tokens + stats.tokens, passes + stats.passes
        if stats.end == layerline.GenerationEnd.LENGTH:
            sys.exit(f"{path}: schema {number} has no end:\n{json.dumps(given)}\n{text}")
        try:
            jsonschema.Draft202012Validator(given).validate(json.loads(text))
        except Exception as error:
            sys.exit(f"{path}: schema {number}:\n{json.dumps(given)}\n{text}\n{error}")
    print(f"{path}: {count} texts are valid: {tokens} tokens, {passes} passes, {time.monotonic() - began:.1f} s")


FIXED = {
    "type": "object",
    "properties": {
        "customer name": {"type": "string", "maxLength": 16},
        "delivery address": {"type": "object", "properties": {
            "street": {"type": "string", "maxLength": 16}, "house number": {"type": "integer", "minimum": 1, "maximum": 200},
            "country": {"enum": ["Denmark", "Norway", "Sweden"]}},
            "required": ["street", "house number", "country"], "additionalProperties": False},
        "payment method": {"enum": ["credit card", "bank transfer", "cash on delivery"]},
        "express delivery": {"type": "boolean"},
    },
    "required": ["customer name", "delivery address", "payment method", "express delivery"],
    "additionalProperties": False,
}


def measure(path):
    import ctypes

    model = layerline.Model(path, layerline.Options(memory_budget=budget(path, 0.25), context_length=512))
    began = time.perf_counter()
    constraint = layerline.Constraint(model, layerline.ConstraintKind.JSON_SCHEMA, json.dumps(FIXED))
    print(f"{path}: the first constraint took {(time.perf_counter() - began) * 1e3:.0f} ms")
    generation = layerline.Generation(max_tokens=300, constraint=constraint)
    prompt = model.tokenize("A random order of a customer as JSON:\n", bos=True)
    sampler = layerline.Sampler(temperature=0.8, seed=1)
    text = layerline.Session(model).generate(prompt, generation=generation, sampler=sampler)
    stats = generation.stats()
    print(f"at a quarter of the file: {stats.passes} passes for {stats.tokens} tokens: {stats.passes / stats.tokens:.3f}")
    print(text)
    # Masks of every token of texts, without passes: tokens are drawn among those allowed.
    c, times, rng = layerline._c(), [], random.Random(5)
    words, needed = (ctypes.c_uint32 * (1 << 16))(), ctypes.c_size_t()
    for given in [FIXED, {"type": "string"}, {"type": "array", "items": {"type": "string"}, "maxItems": 40}] + list(schemas())[:40]:
        follower = layerline.Constraint(model, layerline.ConstraintKind.JSON_SCHEMA, json.dumps(given))
        for _ in range(60):
            with follower._use() as own:
                began = time.perf_counter()
                status = c.layerline_constraint_mask(own, words, 1 << 16, ctypes.byref(needed), None)
                times.append(time.perf_counter() - began)
            layerline._check(status)
            allowed = [32 * at + bit for at in range(needed.value) if words[at] for bit in range(32) if words[at] >> bit & 1]
            follower.accept([rng.choice(allowed)])
            if follower.state() == layerline.ConstraintState.COMPLETE:
                break
    times.sort()
    at = lambda share: times[min(len(times) - 1, int(len(times) * share))] * 1e6  # noqa: E731
    print(f"{len(times)} masks: median {at(0.5):.0f} us, p90 {at(0.9):.0f} us, p99 {at(0.99):.0f} us, most {times[-1] * 1e6:.0f} us")


if __name__ == "__main__":
    paths = sys.argv[1:]
    run = validate
    if paths[:1] == ["--measure"]:
        run, paths = measure, paths[1:]
    elif paths[:1] == ["--all"]:
        run, paths = functools.partial(validate, every=1), paths[1:]
    for path in paths:
        run(path)
