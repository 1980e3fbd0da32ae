"""Which strengths are tried, and which try is taken."""

from __future__ import annotations

import pytest

from ghostdeploy.deploy.quantize.choose import Chosen, choose
from ghostdeploy.deploy.quantize.recipe import METHODS, Choice


class Trial:
    """Gives each strength a quality; the first estimator of ranges is the best."""

    def __init__(self, quality):
        self.quality, self.tried = quality, []

    def collect(self, floating, batches, batch_count=None):
        return {}

    def tries(self, strength, method, floating, histograms):
        self.tried.append((strength, method))
        worse = METHODS.index(method)
        for correct in (False, True):
            choice = Choice(strength=strength, ranges=method, correct_bias=correct)
            yield Chosen(self.quality[strength] - worse + 0.1 * correct, choice, floating, {}, {}, {})


@pytest.mark.parametrize(
    ("quality", "tried", "best"),
    [
        ({0.0: 30, 0.5: 28, 0.75: 35}, [0.0, 0.5], 0.0),
        ({0.0: 30, 0.5: 31, 0.75: 29}, [0.0, 0.5, 0.75], 0.5),
        ({0.0: 30, 0.5: 31, 0.75: 32}, [0.0, 0.5, 0.75], 0.75),
        ({0.0: 30}, [], 0.0),
    ],
)
def test_no_strength_is_tried_beyond_one_that_was_worse(quality, tried, best):
    trial, floats = Trial(quality), {strength: f"graph {strength}" for strength in quality}

    chosen, notes = choose(trial, floats, list, [], batch_count=1, on_progress=lambda done, total: None)

    assert trial.tried == [*((one, METHODS[0]) for one in tried), *((best, method) for method in METHODS)]
    assert (chosen.floating, chosen.choice) == (
        floats[best],
        Choice(strength=best, ranges=METHODS[0], correct_bias=True),
    )
    assert len(notes) == 2 * len(trial.tried)
