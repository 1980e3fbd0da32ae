"""The pipeline and its steps: capture, fold, convert, prove, measure."""
