#!/usr/bin/env bash
# OpenVINO on Arm has no integer kernel for a quantized convolution whose activations have a zero point: on processors
# without float16 arithmetic (Cortex-A53, A72) the model does not compile, on others it is computed in float16, against
# the hint.
#
# Expected: one 1×1 convolution of int8 weights between two FakeQuantize (the form that quantizers write) compiles on
#   every aarch64 processor, and with INFERENCE_PRECISION_HINT f32 its float parts are float32.
# Seen, openvino 2026.4.1, emulated by qemu-user:
#   activations from 0 to 2.55    A72, A76: acl_I8
#   activations from -1 to 1.55   A72: "object is not initialized" from compile_model; A76: ref_any_f16
#   the same with the internal property LP_TRANSFORMS_MODE off    A72, A76: gemm_acl_f32
# On x86 the second model runs in integers and gives the same numbers as in float.
# Needs Debian 12 on x86-64, no root; fetches about 130 MB. Exits 0 while this holds, 1 when any part of it changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

# The emulator and an arm64 Python, from the signed archives, without touching the system.
mkdir -p apt/lists/partial apt/cache/archives/partial debs root/proc
touch apt/status
apt() {
    apt-get -qq -o Dir::State="$folder/apt" -o Dir::State::lists="$folder/apt/lists" -o Debug::NoLocking=true \
        -o Dir::State::status="$folder/apt/status" -o Dir::Cache="$folder/apt/cache" \
        -o APT::Architectures::=amd64 -o APT::Architectures::=arm64 -o APT::Sandbox::User= "$@"
}
apt update
(cd debs && apt download qemu-user-static:amd64 {libc6,libgcc-s1,libstdc++6,libgomp1,libatomic1,zlib1g}:arm64 \
    {libexpat1,libffi8,libssl3,libbz2-1.0,liblzma5,libcrypt1}:arm64 \
    {python3.11-minimal,libpython3.11-minimal,libpython3.11-stdlib}:arm64)
dpkg-deb --fsys-tarfile debs/qemu-user-static_*.deb | tar -x --strip-components=3 ./usr/bin/qemu-aarch64-static
for package in debs/*_arm64.deb; do dpkg-deb -x "$package" root; done

python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: --python-version 3.11 \
    --platform manylinux_2_35_aarch64 --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
    --target site numpy==2.4.6 openvino==2026.4.1

cat >model.py <<'PROGRAM'
import sys

import numpy as np
import openvino
from openvino import opset13 as o


def quantize(value, low, high):
    ends = [o.constant(np.float32(end)) for end in (low, high)]
    return o.fake_quantize(value, *ends, *ends, 256)


def model(low, high):
    image = o.parameter([1, 16, 8, 8], np.float32, name="image")
    weights = (np.arange(8 * 16) % 127 - 63).astype(np.int8).reshape(8, 16, 1, 1)
    scaled = o.multiply(o.convert(o.constant(weights), "f32"), o.constant(np.float32(0.01)))
    layer = o.convolution(quantize(image, low, high), scaled, [1, 1], [0, 0], [0, 0], [1, 1])
    bias = np.linspace(-0.5, 0.5, 8, dtype=np.float32).reshape(1, 8, 1, 1)
    return openvino.Model([quantize(o.relu(o.add(layer, o.constant(bias))), 0.0, 2.0)], [image], "one")


def kernel(low, high, **settings):
    settings = {"INFERENCE_PRECISION_HINT": "f32"} | settings
    try:
        compiled = openvino.Core().compile_model(model(low, high), "CPU", settings)
    except RuntimeError as error:
        return str(error).strip().splitlines()[-1]
    facts = [op.get_rt_info() for op in compiled.get_runtime_model().get_ops()]
    return next(one["primitiveType"].astype(str) for one in facts if one["layerType"].astype(str) == "Convolution")


print(" | ".join([kernel(0.0, 2.55), kernel(-1.0, 1.55), kernel(-1.0, 1.55, LP_TRANSFORMS_MODE=False)]))
PROGRAM

state=0
while read -r core features expected; do
    printf 'processor\t: 0\nFeatures\t: %s\nCPU implementer\t: 0x41\nCPU architecture: 8\n\n' "${features//,/ }" >root/proc/cpuinfo
    found=$(env -i PYTHONPATH="$folder/site" PYTHONNOUSERSITE=1 ./qemu-aarch64-static -cpu "$core" -L root root/usr/bin/python3.11 model.py)
    echo "$core: $found"
    [ "$found" = "$expected" ] || state=1
done <<'EXPECTED'
cortex-a72 fp,asimd,crc32,cpuid acl_I8 | object is not initialized | gemm_acl_f32
cortex-a76 fp,asimd,crc32,atomics,fphp,asimdhp,cpuid,asimdrdm,asimddp acl_I8 | ref_any_f16 | gemm_acl_f32
EXPECTED
[ $state = 0 ] && echo "as seen before" || echo "CHANGED: not what was seen before"
exit $state
