"""The page about families says what the tests build."""

from pathlib import Path

from .table import page

PAGE = Path(__file__).parents[2] / "docs" / "families.md"


def test_the_page_is_up_to_date():
    assert PAGE.read_text() == page(), "run: python -m tests.families.table > docs/families.md"
