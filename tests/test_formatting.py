"""Sizes as people read them, and texts of users in Markdown."""

import pytest

from ssl_pipeline.formatting import format_bytes, markdown_line


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3.25 * 2**20, "3.2 MiB"),
     (2**30, "1.0 GiB"), (2**42, "4.0 TiB"), (2**52, "4096.0 TiB")],
)  # fmt: skip
def test_a_size_has_the_unit_that_keeps_it_short(size, text):
    assert format_bytes(size) == text


@pytest.mark.parametrize(
    ("text", "line"),
    [("Grade\n# 2", "Grade # 2"), ("a|b", r"a\|b"), ("<img src=x>", "&lt;img src=x>"),
     ("p < .001, [µl] $(x) {0}", "p < .001, [µl] $(x) {0}")],
)  # fmt: skip
def test_a_users_text_is_one_line_of_markdown_and_no_html(text, line):
    assert markdown_line(text) == line
