"""Configuration of the documentation: ``make docs`` builds it with shortened demos, ``make docs-full`` with whole ones.

Nothing is fetched while building, and the pages need no other server: mathematics is set by a MathJax that is copied
into them.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).resolve().parent
# The module ``gallery`` there has the order of the demos, their arguments and their figures.
sys.path.insert(0, str(HERE / "_ext"))

import icgn  # noqa: E402

project = "icgn"
author = "The icgn developers"
copyright = f"2026, {author}. BSD-3-Clause"
version = release = icgn.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",
    "numpydoc",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_ext", "_templates", "gallery/GALLERY_HEADER.rst"]
# Quotes and dashes stay as they are written: options have two of them.
smartquotes = False
templates_path = ["_templates"]
suppress_warnings = ["config.cache"]

# Pages are Markdown, docstrings reStructuredText.
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 3

# Docstrings.
autosummary_generate = True
autosummary_ignore_module_all = False


def _own(part: str, names: list[str]) -> list[str]:
    """The names of a part that it defines itself; names of other parts have their page there."""
    module = importlib.import_module(part)
    homes = {name: getattr(getattr(module, name), "__module__", part) for name in names}
    return [name for name, home in homes.items() if f"{home}.".startswith(f"{part}.") or not home.startswith("icgn.")]


autosummary_context = {"own": _own}
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
numpydoc_show_class_members = False
numpydoc_attributes_as_param_list = True

# The gallery runs every demo, each in an interpreter that is fresh as far as modules go.
FULL = os.environ.get("ICGN_DOCS_FULL") == "1"
sphinx_gallery_conf = {
    "examples_dirs": "../demos",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "within_subsection_order": "gallery.DemoOrder",
    "reset_argv": "gallery.full_arguments" if FULL else "gallery.quick_arguments",
    "image_scrapers": ("gallery.figures",),
    "reset_modules": ("matplotlib", "gallery.reset"),
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 0,
    "plot_gallery": "True",
    "doc_module": ("icgn",),
    "backreferences_dir": "gallery/backreferences",
    "inspect_global_variables": False,
    "capture_repr": (),
    "copyfile_regex": "",
    "write_computation_times": False,
}

html_theme = "pydata_sphinx_theme"
html_title = "icgn"
html_static_path = ["_static"]
html_css_files = ["icgn.css"]
html_show_sourcelink = False
html_theme_options = {
    "navigation_with_keys": False,
    "header_links_before_dropdown": 7,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
    "secondary_sidebar_items": ["page-toc"],
}
# A page without pages below it has an empty sidebar.
html_sidebars = {page.stem: [] for page in HERE.glob("*.md")}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def setup(app: Sphinx) -> None:
    """Give the tables that benchmarks have written the titles that pages need."""
    app.connect("source-read", _titled)


def _titled(app: Sphinx, name: str, source: list[str]) -> None:
    folder, _, file = name.removeprefix("results/").partition("/")
    if name.startswith("results/") and file:
        source[0] = f"# Table: {folder}\n\n{source[0]}"
