"""The HTML templates that lie beside this file."""

from jinja2 import Environment, PackageLoader, StrictUndefined


def template_environment() -> Environment:
    """Where templates are found: text is escaped, and a name that nobody gives is an error."""
    return Environment(
        loader=PackageLoader("ssl_pipeline.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
