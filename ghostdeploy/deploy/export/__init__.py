"""One export: the request, its conversion steps, and their results put together in a bundle.

In: an `ExportConfig` and a model. Out: `Exported`, bundles with a verdict. The only place that defines the order.
Never: a vendor's library in this process; converters and quantizers run in their own processes.
"""
