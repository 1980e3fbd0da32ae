"""What people see and type: options, tables, progress bars, messages.

In: the records that the library returns. Out: text on standard output and standard error, in characters that the
terminal can show. Never: a computation, a decision, or an import of torch or an engine.
"""
