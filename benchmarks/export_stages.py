"""Wall time of `export` by stage, in one process, from the first import to the judged bundle.

    python benchmarks/export_stages.py [MODEL] [-t TARGET] [--json]

Aim: GhostNet 1.0× to OpenVINO fp32 in at most 20 s on two cores. Imports of torch and of the converters count too.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="ghostnet_100")
    parser.add_argument("-t", "--target", default="openvino")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    begin = time.perf_counter()
    from ghostdeploy.deploy.export.pipeline import run_export
    from ghostdeploy.deploy.intake.resolve import resolve_model
    from ghostdeploy.deploy.plan.config import ExportConfig

    with tempfile.TemporaryDirectory() as folder:
        config = ExportConfig(targets=(options.target,), out=Path(folder))
        exported = run_export(resolve_model(options.model, config), config)
        verdict = exported.bundles[0].manifest.verdict
    total = time.perf_counter() - begin
    seconds = exported.seconds | {"everything else": total - sum(exported.seconds.values()), "total": total}
    if options.json:
        print(json.dumps({"model": options.model, "target": options.target, "verdict": verdict, "seconds": seconds}))
        return
    print(f"{options.model} to {options.target} fp32: {verdict}")
    for stage, value in seconds.items():
        print(f"  {stage:<22} {value:7.2f} s  {value / total:6.1%}")


if __name__ == "__main__":
    main()
