"""INT8 bundles compute what their own graph says, prove it anew on every machine, and say what became of each layer."""

from __future__ import annotations

import shutil

import pytest

import ghostdeploy as gd
from ghostdeploy import targets
from ghostdeploy.bundle.folder import DIAGNOSIS, GOLDEN, open_bundle
from ghostdeploy.bundle.writing import write_golden
from ghostdeploy.deploy.prove.diagnose import diagnose
from ghostdeploy.deploy.prove.tolerance import EXECUTION_DB
from tests.commands import run
from tests.conformance.cases import CASES, INT8
from tests.signing import sign_again

int8_cases = pytest.mark.parametrize("case", INT8, ids=str, indirect=True)
float_cases = pytest.mark.parametrize("case", [case for case in CASES if case not in INT8], ids=str, indirect=True)


@int8_cases
def test_the_execution_gap_is_recorded_and_verify_measures_it_anew(path):
    bundle = open_bundle(path)

    found = gd.verify(path)

    recorded = bundle.manifest.execution
    assert recorded.verdict == found.execution.verdict == "passed"
    assert recorded.isa == found.execution.isa
    assert recorded.saturable_channels == found.execution.saturable_channels == 0
    assert found.execution.count == found.parity.count == len(bundle.golden()[0]["input"])


@int8_cases
def test_the_command_verify_shows_the_execution_gap(path, capsys):
    answer = run(capsys, "verify", path)

    assert answer.code == 0
    assert f"executed on {open_bundle(path).manifest.execution.isa}" in answer.out
    assert run(capsys, "verify", path, "--json").document[0]["execution"]["verdict"] == "passed"


@int8_cases
def test_the_outputs_are_those_of_the_quantized_graph_and_not_of_the_float_one(path):
    manifest = open_bundle(path).manifest

    gap = manifest.execution.sqnr_db
    assert 20 < gd.verify(path).parity.sqnr_db < 60
    assert gap is None or gap > manifest.agreement.sqnr_db + 6


@int8_cases
def test_an_engine_that_computes_something_else_than_the_graph_says_fails_verify(path, tmp_path, capsys):
    copy = shutil.copytree(path, tmp_path / "copy")
    bundle = open_bundle(copy)
    inputs, outputs = bundle.golden()
    factor = 1 + 10 ** (-(EXECUTION_DB - 1) / 20)
    write_golden(copy, inputs, outputs, {name: array * factor for name, array in bundle.simulated().items()})
    sign_again(copy)

    found = gd.verify(copy)

    assert (found.parity.verdict, found.execution.verdict, found.verdict) == ("passed", "failed", "failed")
    assert run(capsys, "verify", copy).code == 1


@int8_cases
def test_golden_vectors_without_their_simulation_prove_no_gap(path, tmp_path):
    copy = shutil.copytree(path, tmp_path / "copy")
    write_golden(copy, *open_bundle(copy).golden())
    sign_again(copy)

    assert gd.verify(copy).execution is None


@int8_cases
def test_the_layers_are_int8_by_the_account_of_the_engine(path):
    manifest = open_bundle(path).manifest

    found = manifest.precision_achieved
    recipe = targets.find(manifest.target).recipe
    assert (found.int8_layers, found.float_layers) == ((3, 0) if recipe.int8_groups else (2, 1))
    assert found.int8_mac_share == 1 if recipe.int8_groups else 0.5 < found.int8_mac_share < 1
    assert manifest.verdict == manifest.agreement.verdict == "passed"
    assert manifest.agreement.how == "executed"


@int8_cases
def test_the_diagnosis_is_listed_and_names_every_layer(path):
    assert DIAGNOSIS in {record.path for record in open_bundle(path).manifest.files}
    assert {layer.module for layer in diagnose(path).layers} == {"first", "depthwise", "classifier"}


@float_cases
def test_a_float_bundle_has_no_execution_gap(path):
    bundle = open_bundle(path)

    assert bundle.simulated() is None
    assert bundle.manifest.execution is None
    assert gd.verify(path).execution is None
    assert (bundle.path / GOLDEN).is_file()
