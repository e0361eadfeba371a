#!/usr/bin/env python3
"""How much of a memory limit must be left beside the budget, for a program that does nothing but generate.

    headroom.py GENERATE MODEL LIMIT_MIB...

For each limit the program runs in a memory cgroup of that size (see cgroup_budget.sh), with ever more of it as its budget,
and a prompt that fills the context and a chunk's activations. Printed: the least rest, of those tried, with which it was not killed.
"""

import pathlib
import subprocess
import sys

RESTS_KIB = [16384, 8192, 4096, 3072, 2048, 1024, 512, 0]
CONTEXT = 512
PROMPT = "one " * 440


def survives(generate, model, limit, rest):
    group = pathlib.Path(__file__).with_name("cgroup_budget.sh")
    run = [group, limit, generate, model, PROMPT, "--budget", limit - rest, "--tokens", 16, "--context", CONTEXT]
    done = subprocess.run([str(part) for part in run], capture_output=True)
    if done.returncode == 77:
        sys.exit(done.stderr.decode(errors="replace"))
    return done.returncode == 0


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    generate, model, *limits = sys.argv[1:]
    for limit in (int(mib) << 20 for mib in limits):
        least = None
        for rest in RESTS_KIB:
            if not survives(generate, model, limit, rest << 10):
                break
            least = rest
        print(f"{limit >> 20} MiB: {'none of those tried' if least is None else f'{least} KiB'}", flush=True)


main()
