"""Sizes as people read them."""

import pytest

from ssl_pipeline.formatting import format_bytes


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3.25 * 2**20, "3.2 MiB"),
     (2**30, "1.0 GiB"), (2**42, "4.0 TiB"), (2**52, "4096.0 TiB")],
)  # fmt: skip
def test_a_size_has_the_unit_that_keeps_it_short(size, text):
    assert format_bytes(size) == text
