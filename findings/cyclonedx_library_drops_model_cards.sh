#!/usr/bin/env bash
# The CycloneDX library for Python loses the model card of a machine-learning bill of materials, without a word.
#
# Expected: `Bom.from_json` of a valid CycloneDX 1.6 document whose component is a `machine-learning-model` with a
#   `modelCard` (in the specification since 1.5) keeps the card, or refuses it; what is written again has it.
# Seen, cyclonedx-python-lib 11.12.0: its own strict validator takes the document, `from_json` reads it with no error and
#   no warning, and the document that it writes is valid, has the component, and has no model card: figures of accuracy,
#   data sets and limitations are gone. Tools that merge or convert bills with this library lose them.
# Exits 0 while this holds, 1 when any part of it changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'cyclonedx-python-lib[json-validation]==11.12.0'

cd "$folder"
"$folder/venv/bin/python" -W error - <<'PROGRAM'
import json
import sys

import cyclonedx.model.bom
import cyclonedx.output.json
import cyclonedx.schema
import cyclonedx.validation.json

metric = {"type": "top-1 accuracy", "value": "0.93", "confidenceInterval": {"lowerBound": "0.91", "upperBound": "0.95"}}
document = {
    "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
    "bomFormat": "CycloneDX",
    "specVersion": "1.6",
    "version": 1,
    "components": [
        {
            "type": "machine-learning-model",
            "bom-ref": "model",
            "name": "classifier",
            "version": "1",
            "modelCard": {
                "modelParameters": {"task": "image classification"},
                "quantitativeAnalysis": {"performanceMetrics": [metric]},
            },
        }
    ],
}
valid = cyclonedx.validation.json.JsonStrictValidator(cyclonedx.schema.SchemaVersion.V1_6)
before = json.dumps(document)
bill = cyclonedx.model.bom.Bom.from_json(document)
after = cyclonedx.output.json.JsonV1Dot6(bill).output_as_string()
component = json.loads(after)["components"][0]
print("valid before:", valid.validate_str(before) is None, " valid after:", valid.validate_str(after) is None)
print("component after:", component)
seen = (
    valid.validate_str(before) is None
    and valid.validate_str(after) is None
    and component["type"] == "machine-learning-model"
    and "modelCard" not in component
)
print("as seen before: the card is gone" if seen else "changed")
sys.exit(0 if seen else 1)
PROGRAM
