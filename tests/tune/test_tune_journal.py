"""The journal of `tune`: what was noted stays, half a line does not, and only the same request goes on."""

from __future__ import annotations

import msgspec
import pytest

from ghostdeploy.deploy.intake.pytorch.model import PyTorchModel
from ghostdeploy.deploy.plan.config import ExportConfig
from ghostdeploy.deploy.tune.fingerprint import header_of
from ghostdeploy.deploy.tune.journal import NAME, Exported, Journal, Picked, Refused, Round
from ghostdeploy.errors import BadInput, OutputError, UsageError
from ghostdeploy.models.source import from_module
from tests.staged import dead
from tests.tuning import HEADER, Net

EVENTS = (
    Exported(candidates=("onnx fp32", "openvino fp32"), seconds=12.5, spent=13.0),
    Refused(what="tflite fp32", why="an operator has no lowering", spent=14.0),
    Round(sitting=1, calls={"onnx fp32, 1 thread": 0.001}, queued={}, spent=15.0),
    Picked(sitting=2, asked="[]", budget=60.0, pick="onnx fp32, 1 thread", spent=16.0),
)


@pytest.fixture
def state(tmp_path):
    with Journal(tmp_path / "state", HEADER) as journal:
        for event in EVENTS:
            journal.append(event)
    return tmp_path / "state"


def test_another_run_finds_all_that_was_noted(state):
    with Journal(state, HEADER) as journal:
        assert tuple(journal.events) == EVENTS
        assert journal.spent == 0.0
        assert journal.refused == {"tflite fp32": "an operator has no lowering"}
        assert journal.rounds == [EVENTS[2]]


def test_what_a_killed_run_was_writing_is_removed(state):
    (state / "all-passes").mkdir()
    dead(state / "all-passes", "net-onnx-fp32")

    with Journal(state, HEADER):
        assert list((state / "all-passes").iterdir()) == []


@pytest.mark.parametrize("cut", [1, 7, 30])
def test_a_torn_last_line_is_dropped_and_the_next_one_starts_clean(state, cut):
    data = (state / NAME).read_bytes()
    (state / NAME).write_bytes(data[:-cut])

    with Journal(state, HEADER) as journal:
        assert tuple(journal.events) == EVENTS[:-1]
        assert journal.spent == 15.0
        journal.append(EVENTS[-1])

    assert (state / NAME).read_bytes() == data


def test_a_torn_first_line_is_no_journal_yet(tmp_path):
    (tmp_path / NAME).write_bytes(b'{"event":"requ')

    with Journal(tmp_path, HEADER) as journal:
        assert journal.events == []


@pytest.mark.parametrize(
    ("contenders", "said"),
    [
        ("model", "for another model"),
        ("options", "with other options"),
        ("machine", "on another machine"),
        ("tools", "with other versions"),
    ],
)
def test_the_state_of_another_request_is_refused_with_what_differs(state, contenders, said):
    other = msgspec.structs.replace(HEADER, **{contenders: "different"})

    with pytest.raises(UsageError, match=said) as caught:
        Journal(state, other)

    assert "--force" in caught.value.hint
    with Journal(state, HEADER) as journal:
        assert len(journal.events) == 4


def test_force_forgets_everything_and_starts_for_the_new_request(state):
    (state / "all-passes").mkdir()
    other = msgspec.structs.replace(HEADER, model="different")

    with Journal(state, other, restart=True) as journal:
        assert journal.events == []

    assert [path.name for path in state.iterdir()] == [NAME]
    with Journal(state, other) as journal:
        assert journal.events == []


def test_a_damaged_line_in_the_middle_is_named(state):
    lines = (state / NAME).read_bytes().splitlines(keepends=True)
    (state / NAME).write_bytes(b"".join((*lines[:2], b'{"event":"round","sitting":"one"}\n', *lines[3:])))

    with pytest.raises(BadInput, match=r"line 3 of .*journal"):
        Journal(state, HEADER)


def test_two_runs_at_a_time_are_refused(state):
    with Journal(state, HEADER), pytest.raises(UsageError, match="in use by another run"):
        Journal(state, HEADER)


def test_a_folder_of_something_else_is_never_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")

    with pytest.raises(UsageError, match="has no tune journal"):
        Journal(tmp_path, HEADER, restart=True)

    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_fingerprint_knows_weights_options_and_image_sets(tmp_path):
    model, images = PyTorchModel(from_module(Net().eval())), tmp_path / "images"
    images.mkdir()
    (images / "one.png").write_bytes(b"1234")

    def header(of=model, **options):
        return header_of(of, ExportConfig(**{"targets": ("onnx",), "calibration": images} | options), "this machine")

    first = header()
    assert header() == first
    assert header(targets=("openvino",), out=tmp_path, replace=True) == first
    assert header(max_drop=0.02).options != first.options
    assert header(PyTorchModel(from_module(Net().eval()))).model != first.model
    (images / "two.png").write_bytes(b"1234")
    assert header().options != first.options


FOREIGN = {
    "a file": lambda state: (state / "thesis.tex").write_text("years of work"),
    "a folder": lambda state: (state / "thesis").mkdir(),
    "a file beside bundles": lambda state: ((state / "all-passes").mkdir(), (state / "all-passes" / "notes").touch()),
    "a folder beside bundles": lambda state: (state / "all-passes" / "thesis").mkdir(parents=True),
    "a link": lambda state: (state / "all-passes").symlink_to(state.parent),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_force_removes_nothing_where_the_state_folder_holds_what_tune_did_not_write(state, kind):
    FOREIGN[kind](state)
    (state / "pareto.md").touch()
    before = {path: path.is_file() and path.read_bytes() for path in state.rglob("*")}

    with pytest.raises(UsageError, match="which tune did not write; nothing was removed"):
        Journal(state, HEADER, restart=True)

    assert {path: path.is_file() and path.read_bytes() for path in state.rglob("*")} == before


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("text", ['{"event": "mine"}\n{"event": "no line end"}', "x", '{"event":"requests"}'])
def test_a_journal_of_another_program_is_left_as_it_is(tmp_path, restart, text):
    (tmp_path / NAME).write_text(text)

    with pytest.raises(UsageError, match="is not a tune journal, left unchanged"):
        Journal(tmp_path, HEADER, restart=restart)

    assert (tmp_path / NAME).read_text() == text


def test_a_journal_that_is_a_link_is_not_written_through(tmp_path, state):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / NAME).symlink_to(state / NAME)
    before = (state / NAME).read_bytes()

    with pytest.raises(OutputError, match="cannot be written"):
        Journal(tmp_path / "other", HEADER, restart=True)

    assert (state / NAME).read_bytes() == before
