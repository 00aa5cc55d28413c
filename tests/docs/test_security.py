"""Every promise of SECURITY.md names the test that shows it; test_documents sees that these exist."""

from __future__ import annotations

import re

from tests.docs.documents import ROOT

# What they say is that nothing is promised.
NO_PROMISES = ("`--model file.py:function`",)


def test_every_promise_names_its_test() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    promises = re.split(r"\n(?=- )|\n\n|\n(?=#)", text)
    items = [item[2:] for item in promises if item.startswith("- ") and not item[2:].startswith(NO_PROMISES)]
    assert len(items) > 10
    assert [item for item in items if not re.search(r"`tests/[\w/]+\.py:(\w+\.)?test_\w+`", item)] == []
