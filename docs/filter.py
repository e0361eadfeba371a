#!/usr/bin/env python3
"""Gives Doxygen a header or a document as it likes to read it: `make docs` calls it for every file.

    filter.py FILE

Of a header: sections become groups, the prose at the top a page, "`name`: ..." a \\param, "Errors: ..." a paragraph of its
own, and what the C header declares is linked by its name. Of a document: what a fence names beside its language goes.
"""

import pathlib
import re
import sys

INCLUDE = pathlib.Path(__file__).resolve().parents[1] / "include"
BANNER = re.compile(r"^/\* -- (.*?) -+ \*/$")
PARAMETERS = re.compile(r"^(\s*\* )((?:`(?!layerline_)\w+`(?:, )?)+): ")
ERRORS = re.compile(r"^(\s*\* )(Errors|Statuses of the event)(,[^:]*)?: ")


def declared() -> tuple[set[str], set[str]]:
    """Functions, and everything else with a name that the C header declares."""
    text = (INCLUDE / "layerline.h").read_text()
    functions = set(re.findall(r"^(?:\w[\w ]*[ *])(layerline_\w+)\(", text, re.M))
    others = set(re.findall(r"^#define (LAYERLINE_\w+) ", text, re.M))
    others |= set(re.findall(r"(layerline_\w+)(?:\)\(.*)?;$", text, re.M)) - functions
    return functions, others


def link(line: str, functions: set[str], others: set[str], own: str = "") -> str:
    """Names in a comment as links: in C++ to the global name, not to a member of the same one."""

    def one(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name in functions:
            return f"{own}{name}()"
        return f"{own}#{name}" if name in others else found[0]

    return re.sub(r"`(layerline_\w+)`|(?<![\w`#:/])((?:layerline|LAYERLINE)_\w+)\b(?![`(]|\.\w)", one, line)


def prose(lines: list[str], page: str, title: str) -> list[str]:
    """The comment at the top of a header, as a page: paragraphs, and rules with a name each."""
    functions, others = declared()
    text = [re.sub(r"^(/\*| \*/?) ?", "", line) for line in lines if "do not edit" not in line]
    # What a rule says stands in a column of its own, beside its name.
    column = min(len(line) - len(line.lstrip()) for line in text if line.startswith("      "))
    made = [f"/** \\page {page} {title}", " *"]
    for line in text:
        if re.match(r"^  \S", line):
            made += [" *", f" * **{line[:column].strip()}.**"]
            line = line[column:]
        made.append(f" * {link(line.strip(), functions, others, '::' if page.endswith('cpp') else '')}")
    return made + [" */"]


def header(text: str, name: str) -> str:
    functions, others = declared()
    lines = text.split("\n")
    end = next(i for i, line in enumerate(lines) if line.rstrip() == " */")
    title = "Rules of the C interface" if name.endswith(".h") else "Rules of the C++ interface"
    page = "rules_c" if name.endswith(".h") else "rules_cpp"
    # The page first, then the file, as an empty line each where lines went, so that places in messages stay about right.
    made = prose(lines[: end + 1], page, title) + [f"/** \\file\n * See \\ref {page}. */"]
    inside = comment = False
    for line in lines[end + 1 :]:
        banner = BANNER.match(line)
        if banner:
            topic = banner[1]
            topic = topic[0].upper() + topic[1:]
            group = re.sub(r"\W+", "_", f"{name} {topic}").strip("_").lower()
            if name.endswith(".hpp"):
                topic = f"C++: {topic}"
            made.append(("/** @} */\n" if inside else "") + f"/** \\defgroup {group} {topic}\n * @{{ */")
            inside = True
            continue
        if inside and re.match(r"^(#ifdef __cplusplus|\} // namespace layerline|\}  *// namespace|#endif /\* LAYERLINE_H)", line):
            made.append("/** @} */")
            inside = False
        begins = "/**" in line
        comment = comment or begins
        if comment:
            parameters = PARAMETERS.match(line)
            errors = ERRORS.match(line)
            if parameters and name.endswith(".h"):
                names = ",".join(re.findall(r"`(\w+)`", parameters[2]))
                line = f"{parameters[1]}\\param {names} {line[parameters.end():]}"
            elif errors and name.endswith(".h"):
                line = f"{errors[1]}\\par {errors[2]}{errors[3] or ''}\n{errors[1]}{line[errors.end():]}"
            at = line.index("/**") if begins else 0
            stop = line.find("*/", at)
            stop = len(line) if stop < 0 else stop
            line = line[:at] + link(line[at:stop], functions, others, "" if name.endswith(".h") else "::") + line[stop:]
            comment = "*/" not in line
        made.append(line)
    return "\n".join(made)


def document(text: str) -> str:
    return re.sub(r"^(```\w+) .*$", r"\1", text, flags=re.M)


def main() -> None:
    path = pathlib.Path(sys.argv[1])
    text = path.read_text()
    sys.stdout.write(document(text) if path.suffix == ".md" else header(text, path.name))


if __name__ == "__main__":
    main()
