"""Configuration of the documentation (Sphinx, Markdown pages)."""

import tomllib
from pathlib import Path

project = "qsmnet"
author = "The qsmnet developers"
release = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf8"))[
    "project"
]["version"]

extensions = ["myst_parser"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

html_theme = "alabaster"
html_theme_options = {
    "description": "Learned dipole inversion in quantitative susceptibility mapping"
}
html_title = f"qsmnet {release}"
