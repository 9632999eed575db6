"""Write docs/methods-table.md from the methods themselves: docstrings, defaults and summaries.

python scripts/methods_table.py          # write it
python scripts/methods_table.py --check  # exit 1 when it is not what the code says
"""

import argparse
import functools
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from qsmnet.cli.compose import available, compose, settings
from qsmnet.summary import Summary

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "methods-table.md"
#: Config groups in the order of the pipeline: title, and what a method of it is given.
STAGES: Mapping[str, tuple[str, str]] = {
    "offset": ("Phase offsets", "echoes of wrapped phase and magnitude"),
    "unwrap": ("Unwrapping", "echoes of wrapped phase and magnitude, mask"),
    "fit": ("Field fit", "echoes of unwrapped phase and magnitude, mask"),
    "r2star": ("R2*", "echoes of magnitude, mask"),
    "mask": ("Masks", "magnitude, phase quality"),
    "background": ("Background removal", "total field, its noise, mask"),
    "inverter": ("Inversion", "local field, its noise, mask"),
}
_INPUTS = {"total_field": "total field", "local_fields": "local fields, several orientations"}


def page() -> str:
    """Text of the page."""
    head = (
        "# Table of methods\n\n"
        "Written by `python scripts/methods_table.py` from the code; a test holds both together.\n"
        "An FFT pair is one real transform and its inverse. Details and how each method differs "
        "from\nits paper are in its docstring. Memory is the peak beside the input, as "
        "`python scripts/memory.py` measured it\n(`configs/memory.yaml`): bytes a voxel of the "
        "grid that the method works on, n echoes. A run that would not fit is\nrefused before it "
        "starts.\n"
    )
    return head + "".join(_stage(group) for group in STAGES if available(group))


def _stage(group: str) -> str:
    title, given = STAGES[group]
    found = [(name, *_described(group, name)) for name in available(group)]
    rows = [
        f"| `{name}` | {_input(method, given)} | {about.cost} | {_memory(group, name)} "
        f"| {about.use} | {about.reference} |"
        for name, method, about, _ in found
    ]
    titles = ("name", "input", "cost", "memory / B", "when to use it", "reference")
    table = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|", *rows]
    details = [_details(group, name, explained) for name, _, _, explained in found]
    lines = "\n".join(table)
    return f"\n## {title} (`configs/{group}`)\n\n{lines}\n\n" + "\n".join(details)


def _described(group: str, name: str) -> tuple[object, Summary, type]:
    """The method, its summary, and the class whose docstring explains it."""
    method = compose(group, name)
    explained = type(method)
    if "weights" in settings(group, name):  # a network is explained by itself
        explained = type(compose("network", name))
    about = getattr(explained, "summary", None)
    if not isinstance(about, Summary):
        raise TypeError(f"{explained.__name__} has no summary")
    return method, about, explained


def _memory(group: str, name: str) -> str:
    known = _memory_table().get(group, {}).get(name)
    if known is None:
        return ""
    if known["grid"] != "echoes":
        grid = "padded mask's box" if known["grid"] == "mask" else "padded volume"
        return f"{known['bytes']} ({grid})"
    volume, per_echo, inside, inside_per_echo = known["bytes"]
    parts = [(volume, per_echo, "volume"), (inside, inside_per_echo, "mask")]
    told = [f"{a} + {b} n ({where})" for a, b, where in parts if a or b]
    return ", ".join(told) or "0"


@functools.cache
def _memory_table() -> Mapping[str, Any]:
    table: Mapping[str, Any] = yaml.safe_load((ROOT / "configs" / "memory.yaml").read_text())
    return table


def _input(method: object, given: str) -> str:
    return _INPUTS.get(getattr(method, "takes", ""), given)


def _details(group: str, name: str, explained: type) -> str:
    text = inspect.getdoc(explained) or ""
    title = " ".join(text.split("\n\n")[0].split())
    told = dict(parameters(text))
    values = {key: value for key, value in settings(group, name).items() if key != "_target_"}
    rows = [f"| `{key}` | `{_short(v)}` | {told.get(key, '')} |" for key, v in values.items()]
    table = ["| parameter | default | |", "|---|---|---|", *rows] if rows else []
    return "\n".join([f"### `{name}`", "", title, "", *_equation(text), *table, ""])


def _equation(text: str) -> list[str]:
    found = re.search(r"\.\. math::\s*((?:.+\n?)(?:[ ]+.+\n?)*)", text)
    return ["$$", " ".join(found[1].split()), "$$", ""] if found else []


def _short(value: Any) -> str:  # noqa: ANN401 any config value
    if isinstance(value, dict):
        return str(value.get("_target_", value)).rsplit(".", 1)[-1]
    return str(value)


def parameters(text: str) -> Iterator[tuple[str, str]]:
    """Name and first sentence of each parameter of a numpydoc docstring."""
    section = re.search(r"Parameters\n-+\n(.*?)(?:\n\n\S+\n-+\n|\Z)", text, re.DOTALL)
    entries = re.compile(r"^(\S.*)\n((?:[ ]+.*\n?|\n)+)", re.MULTILINE)
    for names, told in entries.findall(section[1] if section else ""):
        sentence = re.split(r"(?<=[.;:]) ", " ".join(told.split()))[0].rstrip(".;:")
        plain = re.sub(r":math:`([^`]*)`", r"$\1$", sentence).replace("``", "`")
        yield from ((name.strip(), plain.replace("|", r"\|")) for name in names.split(","))


def main() -> None:
    """Write the page, or check it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only compare")
    if parser.parse_args().check:
        sys.exit(PAGE.read_text(encoding="utf-8") != page())
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
