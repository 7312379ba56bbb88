"""Run by test_stranger.py in a process that has no hf_mmspec: `stranger.py FOLDER TOKEN`.

Prints "right: ..." for everything that came out right, and ends with an error where something did not. The last
request is made offline, after a mark in the Hub's list of what it was asked.
"""

import json
import sys
from pathlib import Path

import torch
from huggingface_hub import constants, get_session
from transformers import AutoModel, AutoTokenizer, LlavaForConditionalGeneration, StoppingCriteria
from transformers.generation.streamers import BaseStreamer

FOLDER, TOKEN = Path(sys.argv[1]), sys.argv[2]
TASK = json.loads((FOLDER / "task.json").read_text())
HUB = {"token": TOKEN, "cache_dir": str(FOLDER / "own cache"), "trust_remote_code": True}


class Recorder(BaseStreamer):
    def __init__(self):
        self.tokens, self.ended = [], 0

    def put(self, value):
        self.tokens += value.flatten().tolist()

    def end(self):
        self.ended += 1


class AtLength(StoppingCriteria):
    """A user's own criterion; sees one prefix at a time."""

    def __init__(self, length):
        self.length, self.seen = length, []

    def __call__(self, input_ids, scores, **_):
        self.seen.append(input_ids.shape[1])
        return torch.full((1,), input_ids.shape[1] >= self.length)


def loaded_target():
    target = LlavaForConditionalGeneration.from_pretrained(FOLDER / "target").eval()
    target.generation_config.suppress_tokens = [119]
    return target


def answer(name, request, **options):
    plain, budget = TASK["requests"][request]
    torch.manual_seed(11)
    return target.generate(**inputs, custom_generate=f"some-org/{name}-1.5", **HUB, **{**plain, **budget, **options})


def check_request(name, request):
    assert answer(name, request)[0].tolist() == TASK["answers"][request]
    print(f"right: {name}, {request}")


def check_the_rest(name):
    """Streams, stops, outputs, a drafter of one's own, a pinned one, and that drafts are really made."""
    expected = TASK["answers"]["tree"]
    length = inputs["input_ids"].shape[1]
    streamer, criterion = Recorder(), AtLength(length + 6)
    stopped = answer(name, "tree", streamer=streamer, stopping_criteria=[criterion])[0].tolist()
    assert stopped == expected[: length + 6] == streamer.tokens and streamer.ended == 1
    assert criterion.seen == list(range(length + 1, length + 7))
    output = answer(name, "tree", return_dict_in_generate=True, output_scores=True)
    assert output.sequences[0].tolist() == expected and len(output.scores) == 14
    assert sum(output.speculation.drafted) > 14
    drafter = AutoModel.from_pretrained(f"some-org/{name}-1.5", **HUB)
    assert type(drafter).__module__.startswith("transformers_modules.some_hyphen_org.")
    folder = str(FOLDER / "drafters" / name)
    for own in (drafter, folder):
        assert answer(name, "tree", assistant_model=own)[0].tolist() == expected
    assert answer("pinned", "tree", revision=TASK["revision"])[0].tolist() == expected
    text = tokenizer.decode(expected[length + 3])
    plain = target.generate(**inputs, **TASK["requests"]["tree"][0], stop_strings=[text], tokenizer=tokenizer)
    ours = answer(name, "tree", stop_strings=[text], tokenizer=tokenizer)
    assert ours.tolist() == plain.tolist() and ours.shape[1] < len(expected)
    print(f"right: {name}, the rest")


def refused(message, call):
    try:
        call()
    except (ValueError, OSError) as error:
        assert message in str(error), error
    else:
        raise AssertionError(f"not refused: {message}")


def check_refusals():
    repo, published = "some-org/vispec-1.5", {"token": "hf_nobody", "trust_remote_code": True}
    for trust in (False, None):  # None asks on the terminal, where there is nobody
        options = {**HUB, "trust_remote_code": trust}
        refused("trust_remote_code=True", lambda options=options: AutoModel.from_pretrained(repo, **options))
        refused(
            "trust_remote_code=True",
            lambda options=options: target.generate(**inputs, custom_generate=repo, max_new_tokens=2, **options),
        )
    refused(
        "not a local folder or a valid repository",
        lambda: target.generate(**inputs, custom_generate=repo, **published),
    )
    refused("not with beam_search", lambda: answer("vispec", "tree", num_beams=2))
    refused("stop_strings need the tokenizer", lambda: answer("vispec", "tree", stop_strings=["x"]))
    refused("depth", lambda: answer("vispec", "tree", draft_depth=-1))
    print("right: refusals")


try:
    import hf_mmspec

    raise AssertionError(f"a stranger has no {hf_mmspec}")
except ModuleNotFoundError:
    pass
target = loaded_target()
inputs = torch.load(FOLDER / "inputs.pt")
tokenizer = AutoTokenizer.from_pretrained(FOLDER / "tokenizer")
for family, wanted in TASK["checks"]:
    check_request(family, wanted)
check_the_rest("vispec")
check_refusals()
get_session().get(f"{constants.ENDPOINT}/offline-from-here")
constants.HF_HUB_OFFLINE = True
target = loaded_target()  # drafters are remembered by target
check_request("vispec", "tree")
