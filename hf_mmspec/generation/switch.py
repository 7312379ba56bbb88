"""Whether drafting pays in this part of the answer: an account of the time that it saved and wasted.

Counts in plain decoding steps; knows neither models, nor clocks, nor what a round drafts.

While a request drafts, each round's gain (tokens minus seconds in steps) goes into an account with a ceiling. An empty
account means that the last rounds have wasted what the ceiling allows: drafting goes off (a CUSUM test for a change).
While it is off, a cheap round is tried after a gap, which doubles whenever trying did not help, and only while all
waste of the request is a small share of it. Gaps go on from request to request, since short answers would pay for a
try each.
"""

from dataclasses import dataclass

# The ceiling, in steps: what may be wasted before drafting goes off. Short answers forgive less, drafters that have
# gained in earlier requests or in this one are forgiven more.
_CEILING_SHARE, _LEAST_CEILING, _MOST_CEILING = 0.0125, 1.5, 2.5
_EARNED_SHARE, _MOST_EARNED = 0.1, 2.0
_FIRST_GAP, _MOST_GAP, _MOST_GAP_OF_EARNERS = 8, 128, 32  # tokens; earners have gained in this answer
_WASTE = 0.01  # share of the answer's steps that tries may have cost in all
_MOST_TRUST = 4  # requests that are remembered; after so many in vain the gap is the largest


@dataclass
class Switch:
    """One request's switch.

    Args:
        tokens_left: most tokens that the answer can get.
        trust: how many of the latest requests in a row gained by drafting; negative, how many did not. After those
            drafting starts off, and the first try comes 16, 32, 64 or 128 tokens behind the last one.
        waited: tokens behind the last try, in requests before this one.
    """

    tokens_left: int
    trust: int = 0
    waited: float = 0.0

    def __post_init__(self) -> None:
        share = 1.0 if self.trust > 0 else _CEILING_SHARE
        self._base = min(max(share * self.tokens_left, _LEAST_CEILING), _MOST_CEILING)
        self._account = self._base
        self._gap = _FIRST_GAP * 2 ** min(max(-self.trust, 0), _MOST_TRUST)
        self._net = self._wasted_by_tries = 0.0
        self._tokens = 0.0
        self.is_on = self.trust >= 0

    @property
    def tries(self) -> bool:
        """Whether it is off and the next round should try, cheaply, if drafting pays again."""
        return not self.is_on and self.waited >= self._gap and self._wasted_by_tries <= _WASTE * self._tokens

    @property
    def is_worried(self) -> bool:
        """Whether it is on and half of what may be wasted is gone."""
        return self.is_on and self._account < self._ceiling / 2

    @property
    def _ceiling(self) -> float:
        return self._base + min(_EARNED_SHARE * max(self._net, 0.0), _MOST_EARNED)

    def count_plain(self, tokens: float = 1) -> None:
        """A round that drafted nothing."""
        self._tokens += tokens
        self.waited += tokens

    def count_drafted(self, tokens: float, steps: float, reading: float = 0.0) -> None:
        """A round that drafted.

        Args:
            tokens: that it emitted.
            steps: plain steps that its seconds would have been enough for.
            reading: further ones for the prompt that the drafter read before. They say nothing about the next round,
                but a try that fails has wasted them.
        """
        gain = tokens - steps
        self._tokens += tokens
        self._net += gain
        if not self.is_on:
            self._tried(gain, reading)
            return
        self._account = min(self._account + gain, self._ceiling)
        if self._account >= self._base:
            self._gap = _FIRST_GAP
        elif self._account <= 0:
            self.turn_off()

    def turn_off(self) -> None:
        """Draft no more until a try succeeds."""
        self.is_on, self.waited = False, 0.0

    def trust_after(self) -> int:
        """What the next request's `trust` should be."""
        if self._net == 0:
            return self.trust
        step = 1 if self._net > 0 else -1
        return step * min(max(step * self.trust, 0) + 1, _MOST_TRUST)

    def _tried(self, gain: float, reading: float) -> None:
        self.waited = 0.0
        most = _MOST_GAP_OF_EARNERS if self._net > 0 else _MOST_GAP
        self._gap = min(2 * self._gap, most)  # until the account has been full again
        self._wasted_by_tries += max(reading - gain, 0.0)
        if gain > 0:
            self.is_on, self._account = True, self._ceiling / 2
