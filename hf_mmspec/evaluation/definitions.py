"""The words of a report, each with its definition: every report carries them.

Words only; the arithmetic is in `metrics.py`, `acceptance.py`, `strata.py` and `repetition.py`.
"""

from .repetition import NGRAM, THRESHOLD

DEFINITIONS = {
    "acceptance_length": "L: tokens emitted per target forward after the prefill, the target's own token included, "
    "over all rounds of all prompts and repetitions, each round counted once. 1.0 is plain decoding.",
    "accepted_drafts": "Mean number of drafted tokens kept per round: L - 1. Tables of the ViSpec paper print this.",
    "acceptance_by_position": "Share of rounds that accepted draft i among those that accepted draft i - 1. The last "
    "round of each answer is left out, since the end of the answer cuts it.",
    "accepted_histogram": "Number of rounds by number of accepted drafts.",
    "decode_speedup": "Decode-only tokens/s over that of stock `generate` in the same repetition, totals over all "
    "prompts; median over repetitions. Decode-only: tokens emitted after the first emission, over the time from the "
    "first emission to the last (seen by a streamer), so image encoding and prefill are outside.",
    "slowest_prompt": "The prompt with the smallest decode speed-up (the median over repetitions): its `task`, its "
    "`number` in the task, from 0, and its `decode_speedup`. In batches, which are timed as a whole, the slowest of "
    "them and its number. Null where no answer went on after its first token.",
    "end_to_end_speedup": "The same with all new tokens over the time of the whole `generate` call, image encoding "
    "and prefill included; image preprocessing and tokenisation are outside on both sides.",
    "time_to_first_token": "Seconds from the call of `generate` to the first emission: image or video encoding and "
    "the target's prefill (the drafter reads the prompt afterwards). Median over prompts and repetitions.",
    "interval": "95 % bootstrap over prompts, and over the repetitions of each (1,000 draws, fixed seed).",
    "batch": "Prompts of one task that a call of `generate` answers together, padded on the left; the last call of a "
    "task may hold fewer. Stock `generate` answers the same batches. L is then the mean over rounds and the rows that "
    "were in them, tokens are those of all rows without padding, a step gives each row a token, and every row is "
    "compared with the same row of stock `generate`. Strata are left out, since a batch is timed as a whole.",
    "together": "Some of the tasks in a row of their own, their prompts taken together as for `all`.",
    "budget_choice": "For each task: the decode speed-up with the automatic draft budget, that of the fastest of the "
    "budgets that were measured beside it, and the first over the second. The fastest of many is flattered by noise.",
    "verify_growth": "v: seconds that a round spends in the target's forward over the tree, relative to the seconds "
    "of a step of stock `generate`; from the rounds and runs that were timed.",
    "loop_efficiency": "The share of verification in the time of a round: 1.0 means that drafting and host work cost "
    "nothing. It is decode_speedup * v / L with this v, but for the drafter's reading of the prompt, which decoding "
    "pays for once and no round does.",
    "verify_growth_measured": "v measured apart: the target's forward over as many tokens as the mean tree has (root "
    "included) relative to one token, over a cache of 300 tokens, in the same process; the median of measurements "
    "between the tasks.",
    "loop_efficiency_measured": "decode_speedup * verify_growth_measured / acceptance_length. It also "
    "counts against the loop what its forwards cost beyond bare ones, and it has the noise of both measurements.",
    "break_even_acceptance_length": "L at which a round would take as long as decoding its tokens one by one: seconds "
    "per round over stock seconds per step. Below it speculation loses.",
    "round_shares": "Shares of the decoding time: draft (the drafter), verify (the target's forwards over trees), "
    "other (acceptance, processors, stopping, caches, streaming).",
    "identical": "Every answer has the same token ids as stock `generate`, or parts from it at a near tie: run again "
    "on the common prefix, the target gives both tokens processed scores within epsilon of its best one: 0.25 in "
    "bfloat16 (two of its steps between 16 and 32), 4e-6 in float32; for packed weights at least what the "
    "target's own margins move by when it reads its answer at once instead of token by token; or, where they are "
    "further apart, the target without a drafter chooses either (`chosen`), depending on how many tokens it reads at "
    "once. `identical_samples` "
    "counts the strictly equal, `near_ties` the others, `largest_gap` is the largest distance that was found. Null "
    "where answers are sampled: there the distribution is the target's, not the draws. Seeds are fixed per prompt and "
    "the same for everyone.",
    "accuracy": "Mean grade of the answers of the first repetition; null for data that brings no grading.",
    "repetitive_answers": f"Answers of the first repetition in which more than {THRESHOLD:.0%} of the {NGRAM}-grams "
    "of tokens stood earlier in the same answer. Repetition is easy to draft, so it flatters every drafter.",
    "strata": "The prompts of all tasks in three groups of about equal size (terciles), by the number of new tokens "
    "in the stock answer and by the number of image tokens in the prompt; equal numbers stay together, so there may "
    "be fewer groups. `from` and `to` are the smallest and the largest number in the group.",
    "peak_memory_ratio": "Peak resident memory while answering, in a fresh process each, over that of stock "
    "`generate`; on a GPU, peak allocated memory.",
}
