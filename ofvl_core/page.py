"""HTML pages that need no other file."""

import base64
import html
import io
from collections.abc import Sequence

import cv2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

THUMBNAIL_WIDTH = 320

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2em auto; color: #222 }}
table {{ border-collapse: collapse }}
td, th {{ padding: .3em .8em; text-align: right; border-bottom: 1px solid #ddd }}
td:first-child, th:first-child {{ text-align: left }} img {{ max-width: 100% }}
figure {{ display: inline-block; margin: .5em; vertical-align: top }}
figcaption {{ font-size: 13px; color: #555 }}
</style></head><body><h1>{title}</h1>{body}</body></html>
"""


def page(title: str, body: str) -> str:
    """A page of that title, which is text; `body` is HTML."""
    return _PAGE.format(title=html.escape(title), body=body)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are text; the first column is a heading and the others are numbers."""
    head = "".join(f"<th>{html.escape(heading)}</th>" for heading in headings)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def image(figure: Figure, description: str) -> str:
    """The figure as a picture inside the page."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    source = base64.b64encode(buffer.getvalue()).decode()
    return f'<p><img src="data:image/png;base64,{source}" alt="{html.escape(description)}"></p>'


def photo(rgb: NDArray[np.uint8], description: str, width: int = THUMBNAIL_WIDTH) -> str:
    """The image (H, W, 3), `width` pixels wide, inside the page."""
    height = round(rgb.shape[0] * width / rgb.shape[1])
    thumbnail = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
    encoded = cv2.imencode(".jpg", cv2.cvtColor(thumbnail, cv2.COLOR_RGB2BGR))[1]
    source = base64.b64encode(encoded.tobytes()).decode()
    return f'<img src="data:image/jpeg;base64,{source}" alt="{html.escape(description)}">'


def figure(picture: str, caption: str) -> str:
    """A picture, which is HTML, with its caption, which is text."""
    return f"<figure>{picture}<figcaption>{html.escape(caption)}</figcaption></figure>"
