"""What exporter, runtime and `build` of the TensorRT target share: the kit's records, NVIDIA's library, the driver.

In: a kit's folder, the machine's driver. Out: records, and the library where it can be loaded. Never: a conversion.
"""
