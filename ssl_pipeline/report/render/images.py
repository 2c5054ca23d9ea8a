"""Planes of volumes as small images: grey values, radiological orientation, pixels in mm.

Stored axes run to the patient's right, front and top. `orient_for_display` turns every plane to the
radiological view: front or top up, and the patient's right on the left of the picture.
"""

import base64
import io
from collections.abc import Sequence

import numpy as np
import scipy
from numpy.typing import NDArray
from PIL import Image

from ssl_pipeline.report.render.figures import Picture

MISSING_COLOUR = (0.84, 0.87, 0.91)  # where there is no value
OUTLINE_COLOUR = (230, 159, 0)
GAP_PIXELS = 4  # pixels between the pictures of a row
Colour = NDArray[np.float32]  # (rows, columns, 3), 0 to 1


def orient_for_display(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """A plane (up, across, ...) turned for display: (down, across, ...)."""
    return plane[::-1, ::-1]


def display_window(plane: NDArray[np.float32]) -> tuple[float, float]:
    """Values to show as black and as white: the 0.5th and 99.5th percentile, without nan."""
    low, high = np.nanpercentile(plane, (0.5, 99.5))
    return float(low), float(high)


def to_grey(plane: NDArray[np.float32], low: float, high: float) -> Colour:
    """A plane (y, x) as colours (y, x, 3), black at `low`, white at `high`; nan as missing."""
    share = np.clip((plane - low) / max(high - low, 1e-6), 0, 1)
    return fill_missing(np.repeat(share[..., None], 3, axis=2).astype(np.float32))


def fill_missing(colours: NDArray[np.float32]) -> Colour:
    """Colours (y, x, 3) with `MISSING_COLOUR` where any of the three is nan."""
    out = np.clip(colours, 0, 1).astype(np.float32)
    out[np.isnan(colours).any(axis=2)] = MISSING_COLOUR
    return out


def resize_image(
    colours: Colour, spacing_mm: tuple[float, float], pixels_per_mm: float, *, smooth: bool
) -> Image.Image:
    """A picture of colours (y, x, 3) whose voxels measure `spacing_mm` (y, x)."""
    rows, columns = (
        max(round(side * mm * pixels_per_mm), 1)
        for side, mm in zip(colours.shape[:2], spacing_mm, strict=True)
    )
    image = Image.fromarray((colours * 255).round().astype(np.uint8))
    resample = Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST
    return image.resize((columns, rows), resample)


def draw_outline(image: Image.Image, mask: NDArray[np.bool_]) -> Image.Image:
    """The picture with the outline of a mask (y, x) that covers all of it, of any resolution."""
    inside = np.asarray(Image.fromarray(mask).resize(image.size, Image.Resampling.NEAREST))
    pixels = np.array(image)
    pixels[inside & ~scipy.ndimage.binary_erosion(inside, border_value=1)] = OUTLINE_COLOUR
    return Image.fromarray(pixels)


def join_images(images: Sequence[Image.Image]) -> Image.Image:
    """Pictures side by side on white, middles aligned."""
    height = max(image.height for image in images)
    width = sum(image.width for image in images) + GAP_PIXELS * (len(images) - 1)
    whole = Image.new("RGB", (width, height), "white")
    left = 0
    for image in images:
        whole.paste(image, (left, (height - image.height) // 2))
        left += image.width + GAP_PIXELS
    return whole


def encode_picture(
    image: Image.Image, alt: str, title: str = "", *, is_photo: bool = True
) -> Picture:
    """The picture in a data URI: JPEG, or PNG where edges must stay sharp."""
    buffer = io.BytesIO()
    if is_photo:
        image.save(buffer, "JPEG", quality=82, optimize=True)
    else:
        image.save(buffer, "PNG", optimize=True)
    kind = "jpeg" if is_photo else "png"
    return Picture(
        f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}", alt, title
    )
