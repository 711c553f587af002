"""HTML of the page's places: a template and values in, markup out; the templates escape every value."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from nicegui import ui

ASSETS = Path(__file__).parent / "assets"
templates = Environment(
    loader=FileSystemLoader(ASSETS), autoescape=True, undefined=StrictUndefined, trim_blocks=True, auto_reload=False
)


def html_place(classes: str = "") -> ui.html:
    """A place for what ``render`` made."""
    return ui.html("", sanitize=False).classes(classes)


def render(template: str, **values: object) -> str:
    """assets/<template>.html with these values."""
    return templates.get_template(f"{template}.html").render(**values)
