"""The default route: the untouched module exported in each vendor's usual way, and nothing else.

In: a model as the command line names it. Out: a bundle like any other, so the same runtime runs it with the same
session settings and threads and only the artefact differs. Each row names its own `DefaultConverter`; it runs in a
child process like every converter. Never: a rewrite, or a precision other than the vendor's default.
"""
