"""The HTML templates that lie beside this file."""

from jinja2 import Environment, PackageLoader, StrictUndefined


def template_environment() -> Environment:
    """The Jinja environment: text is escaped, and an undefined name is an error."""
    return Environment(
        loader=PackageLoader("ssl_pipeline.report.render", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
