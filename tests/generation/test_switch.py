"""On or off: an account of what drafting saves and wastes, in plain decoding steps."""

import pytest

from hf_mmspec.generation.switch import Switch


def off(**options):
    switch = Switch(**{"tokens_left": 160, **options})
    while switch.is_on:
        switch.count_drafted(1, 1.5)
    return switch


def gaps(switch, count, steps=1.2):
    """Tokens between tries that fail."""
    found = []
    for _ in range(count):
        waited = 0
        while not switch.tries:
            switch.count_plain()
            waited += 1
        found.append(waited)
        switch.count_drafted(1, steps)
    return found


def test_rounds_that_waste_switch_it_off_before_much_is_lost():
    switch, lost = Switch(160), 0.0
    while switch.is_on:
        assert not switch.tries
        switch.count_drafted(1, 1.5)
        lost += 0.5
    assert lost <= 0.02 * 160


def test_a_bad_round_between_good_ones_changes_nothing():
    switch = Switch(160)
    for _ in range(50):
        switch.count_drafted(4, 1.5)
        switch.count_drafted(1, 2.0)
    assert switch.is_on and not switch.is_worried


def test_it_worries_when_half_is_gone():
    switch = Switch(160)
    switch.count_drafted(1, 2.2)
    assert switch.is_on and switch.is_worried


def test_what_was_earned_may_be_lost_in_part():
    new, earner = Switch(160), Switch(160)
    for _ in range(30):
        earner.count_drafted(5, 1.5)
    for switch in (new, earner):
        for _ in range(6):
            if switch.is_on:
                switch.count_drafted(1, 1.5)
    assert not new.is_on and earner.is_on


def test_gaps_double_and_are_bounded():
    assert gaps(off(), 7) == [8, 16, 32, 64, 128, 128, 128]


def test_dear_tries_wait_until_the_answer_is_long_enough():
    assert sum(gaps(off(), 3, steps=2.0)) >= 100


def test_a_good_try_switches_it_on_with_little_credit_and_gaps_start_again_once_it_pays():
    switch = off()
    gaps(switch, 2)
    while not switch.tries:
        switch.count_plain()
    switch.count_drafted(3, 1.4)
    assert switch.is_on
    switch.count_drafted(1, 2.2)
    assert not switch.is_on and gaps(switch, 1) == [64]
    while not switch.tries:
        switch.count_plain()
    for _ in range(5):
        switch.count_drafted(4, 1.4)
    while switch.is_on:
        switch.count_drafted(1, 1.5)
    assert gaps(switch, 1) == [8]


@pytest.mark.parametrize("trust, first", [(-1, 16), (-2, 32), (-4, 128), (-9, 128)])
def test_after_requests_in_vain_it_starts_off_and_tries_later(trust, first):
    switch = Switch(160, trust)
    assert not switch.is_on and gaps(switch, 1) == [first]


def test_gaps_go_on_from_request_to_request():
    first = Switch(60, trust=-4)
    first.count_plain(60)
    second = Switch(60, first.trust_after(), first.waited)
    assert not first.tries and gaps(second, 1) == [68]


def test_a_try_has_wasted_what_the_drafter_read_for_it_too():
    cheap, dear = off(), off()
    for switch in (cheap, dear):
        switch.count_plain(20)
    cheap.count_drafted(1, 1.2)
    dear.count_drafted(1, 1.2, reading=1.0)
    assert gaps(cheap, 1) == [16] and gaps(dear, 1)[0] > 90
    while not dear.tries:
        dear.count_plain()
    dear.count_drafted(2, 1.2, reading=1.0)
    assert dear.is_on


def test_trust_counts_requests_in_a_row():
    trust, seen = 0, []
    for gain in (1, 1, -1, -1, -1, -1, -1, 1):
        switch = Switch(160, trust)
        switch.count_drafted(1 + gain, 1)
        trust = switch.trust_after()
        seen.append(trust)
    assert seen == [1, 2, -1, -2, -3, -4, -4, 1]
    assert Switch(160, 3).trust_after() == 3


def test_short_answers_forgive_less():
    assert Switch(1000).is_on and off(tokens_left=1000)._net < off(tokens_left=20)._net
