"""Live diagnosis: the tensors inside an exported payload against those of a reference, layer by layer.

In: a payload opened to be looked into (`runtimes.probe`), and what each layer of the reference reads. Out: where error
arises, apart from where it arrives. Never: torch.
"""
