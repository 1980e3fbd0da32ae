"""Bundles in the forms that model servers, hubs and registries take.

In: finished bundles that failed no gate. Out: a Triton or OpenVINO Model Server repository, a Hugging Face folder, an
OCI layout. Every form holds the whole bundle, golden vectors and signatures too, so `verify` works on what was handed
over. Never: a network, or a change of something that was handed over before.
"""
