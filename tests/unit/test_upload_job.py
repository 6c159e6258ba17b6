"""What an upload job is made of."""

from __future__ import annotations

from typing import Any

import pytest

from iot.transfer import ConfigurationError, IfExists, UploadJob


@pytest.mark.parametrize("policy", list(IfExists))
def test_what_to_do_where_a_file_exists_may_be_said_in_words(policy: IfExists) -> None:
    words: Any = policy.value
    assert UploadJob("a", "b", if_exists=words).if_exists is policy


def test_another_word_is_refused_before_anything_is_sent() -> None:
    words: Any = "replace"
    with pytest.raises(ConfigurationError, match="must be one of overwrite, skip, fail, rename"):
        UploadJob("a", "b", if_exists=words)
