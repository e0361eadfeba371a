#!/usr/bin/env python3
"""Writes the files that an emulated machine begins with, as the kernel reads them (cpio, "newc").

  files.py OUT NAME=FILE...     NAME=FOLDER: all of its files
"""

import pathlib
import sys


def entry(number, name, mode, content=b""):
    name = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    return b"".join(part + bytes(-len(part) % 4) for part in (head, content))


def files(pairs):
    for name, path in (pair.split("=", 1) for pair in pairs):
        path = pathlib.Path(path)
        inside = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else []
        yield from ((f"{name}/{file.relative_to(path)}", file) for file in inside)
        if path.is_file():
            yield name, path


def write(out, pairs):
    number, folders = 0, set()
    for name, path in files(pairs):
        parents = [str(parent) for parent in pathlib.PurePosixPath(name).parents][-2::-1]
        for folder in parents:
            if folder not in folders:
                folders.add(folder)
                number += 1
                out.write(entry(number, folder, 0o040755))
        number += 1
        out.write(entry(number, name, 0o100755, path.read_bytes()))
    out.write(entry(0, "TRAILER!!!", 0))


if __name__ == "__main__":
    with open(sys.argv[1], "wb") as out:
        write(out, sys.argv[2:])
