"""What the chat benchmark makes of what was said and seen."""

from __future__ import annotations

import pytest

from benchmarks.chat_stream_app import Said
from benchmarks.chat_stream_browser import compare

# Two events, a second word that is cut between them; each event's text was made 100 ms before it.
SAID = [Said(1.0, "w00000 w000", 5, 0.9), Said(1.1, "01 w00002 ", 5, 1.0)]


def test_a_word_is_as_late_as_the_event_that_completed_it() -> None:
    measured = compare([(990.0, -1), (1050.0, 0), (1180.0, 2)], 30.0, SAID)
    assert measured.late_ms == pytest.approx(80) and measured.after_made_ms == pytest.approx(180)
    assert measured.paints_per_second == pytest.approx(2 / 0.13) and measured.longest_task_ms == 30
    assert measured.tokens_per_second == pytest.approx(10 / 0.18) and measured.characters_per_second == pytest.approx(21 / 0.18)


def test_words_that_were_passed_over_count_when_a_later_one_is_seen() -> None:
    assert compare([(1050.0, 0), (2100.0, 2)], 0.0, SAID).late_ms == pytest.approx(1000)


def test_a_reply_that_was_not_seen_to_its_end_is_no_measurement() -> None:
    with pytest.raises(AssertionError, match="cut"):
        compare([(1050.0, 1)], 0.0, SAID)
