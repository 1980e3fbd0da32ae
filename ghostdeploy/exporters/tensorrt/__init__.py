"""Makes TensorRT payloads: build kits, and engines where they can be built."""
