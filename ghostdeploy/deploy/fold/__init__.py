"""The fold: a trained PyTorch network becomes a plain graph, rewritten exactly and proven in float64.

In: a module in any mode and an example input. Out: `FoldedGraph` and its certificate, and the program file that
converters load. Never: an approximation, or a change of the caller's module.
"""
