"""Serves bundles over the Open Inference Protocol v2, REST and gRPC, by KServe's model server.

In: bundles, checked as `load` checks them, and limits. Out: answers that are the bundles' outputs, or one sentence that
says what is wrong with a request. KServe's library has routes, messages, health and metrics; here are the models, the
limits, and what a request may be. Never: torch, a network beyond the address it listens on.
"""
