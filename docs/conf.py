project = "lstmlm"
author = "the lstmlm developers"
copyright = "2026, the lstmlm developers"

extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "lstmlm"

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "none"  # the docstrings say types, shapes and units
numpydoc_show_class_members = False  # autodoc shows them


def skip_scikit_learns(app, what, name, obj, skip, options):
    """Leave out what scikit-learn puts on every estimator, its set_*_request methods for one."""
    made = name.startswith("set_") and name.endswith("_request")
    theirs = str(getattr(obj, "__module__", "")).startswith("sklearn.")
    return True if made or theirs else None


def setup(app):
    app.connect("autodoc-skip-member", skip_scikit_learns)
