"""`ghostdeploy tune`: which target, precision, passes and threads are best for one model on this machine.

    enumerate → export what is new → measure all in turn → leave single passes out of the near ones → measure those
    → close contenders in one run → the best few once more in one last run: the best there is the pick

In: a model and limits. Out: the pick, its rivals, and the best few bundles. Never: a figure of another machine.
Everything is journalled, so an interrupted run resumes where it was. The order is in `run`; what is tried in
`candidates`, the journal in `journal`, the statistics in `contest`.
"""
