"""What exporter, runtime and `build` of the TensorRT target share: the kit's records, NVIDIA's library, the driver."""
