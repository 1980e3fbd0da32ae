"""One export: what was asked, the steps that lead there, and their results put together in a bundle.

In: an `ExportConfig` and a model. Out: `Exported`, bundles with a verdict. The one place that knows the order. Never: a
vendor's library in this process; converters and quantizers run in processes of their own.
"""
