"""The default route: what a user gets who exports the untouched module in each vendor's usual way, nothing else done.

In: a model as the command line names it. Out: a bundle like any other, so the same runtime runs it with the same
session settings and threads and only the artefact differs. Each row names its own `DefaultConverter`; it runs in a
child process like every converter. Never: a rewrite, or a precision that was not the vendor's choice.
"""
