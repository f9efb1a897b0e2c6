"""The pages' templates: one environment, which escapes whatever comes from a model, a program or a file."""

from __future__ import annotations

from pathlib import Path

import jinja2
from markupsafe import Markup

from phase1.report.escaping import shown

LONGEST = 1_000_000  # characters of one text in a page


def page_environment() -> jinja2.Environment:
    """The environment of every HTML page of the toolkit; a name that a template does not get is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown_unless_ours,
    )
    environment.filters["shown"] = shown
    return environment


def _shown_unless_ours(value: object) -> object:
    """Texts with what is invisible made visible; markup of our own as it is."""
    return shown(value, LONGEST) if isinstance(value, str) and not isinstance(value, Markup) else value
