"""HTML pages that can be read without network, server or script.

Everything shown is escaped, since names come from strangers' projects.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from qprd.files.atomic import replacing, write_errors


def write_page(path: Path, template: str, **content: object) -> Path:
    """Fill a template of this package and write the page, whole or not at all.

    Raises:
        QprdError: The page cannot be written.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["href"] = _href
    # A picture as a data URI, so that the page is one file.
    environment.filters["embedded"] = lambda picture, kind: (
        f"data:image/{kind};base64,{base64.b64encode(picture).decode('ascii')}"
    )
    page = environment.get_template(template).render(content)
    with write_errors("The page", path), replacing(path) as new:
        # A file name that is not valid Unicode reaches us as lone surrogates.
        new.write_text(page, encoding="utf-8", errors="xmlcharrefreplace")
    return path


def _href(names: Sequence[str]) -> str:
    """A link to a file below the page, of the names of its folders and of its own.

    It is percent-encoded, so that a colon in a name makes no URL scheme of it.
    """
    return "/".join(quote(os.fsencode(name), safe="") for name in names)
