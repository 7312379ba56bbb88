"""Two processes (gloo) learn and answer what one does."""

import datasets
import pytest
import torch
from safetensors.torch import load_file

from tests.slow_parameters import others_slow
from tests.training.robustness import worker, world

QUIET = ["stages.*.noise=0.0", "stages.*.own_token_rate=0.0", "stages.*.epochs=0.6", "evaluations=1"]
TRAININGS = {
    "vispec": ("vispec", [], 1),
    "vispec, accumulated": ("vispec", [], 2),
    "flash": ("flash", ["drafter.dropout=0.0"], 1),
    "one sees no picture": ("vispec", ["stages.*.batch_size=2"], 1),
}


# the first is in the second as its single process, and without accumulation in the third
@pytest.mark.parametrize("name", others_slow(TRAININGS, list(TRAININGS)[1:]))
def test_two_processes_learn_what_one_does(tmp_path, finished, name):
    family, changes, accumulate = TRAININGS[name]
    run = {
        count: world.train_run(
            tmp_path / str(count), family, *QUIET, *changes, save_minutes=0, accumulate=accumulate if count == 2 else 1
        )
        for count in (1, 2)
    }
    for count in run:
        assert worker.call(worker.train, run[count], [finished], processes=count) == [0] * count
    one, two = (world.histories(run[count]) for count in (1, 2))
    assert set(one) == set(two) and len(one) > 8
    for key, value in one.items():
        assert two[key] == pytest.approx(value, rel=1e-5, abs=1e-5), key
    weights, others = (load_file(run[count].out / "model.safetensors") for count in (1, 2))
    for key, value in weights.items():
        torch.testing.assert_close(others[key].float(), value.float(), atol=1e-4, rtol=1e-2)  # saved in bfloat16


def test_two_processes_share_the_answering(table, tmp_path, finished):
    assert worker.call(worker.distil, table, tmp_path / "a", processes=2) == [0, 0]
    assert datasets.load_from_disk(str(tmp_path / "a")).to_list() == datasets.load_from_disk(str(finished)).to_list()
