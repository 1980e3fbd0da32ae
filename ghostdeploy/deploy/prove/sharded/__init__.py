"""Evaluation in parts: by worker processes, by a run that is killed and resumed, by a fleet of devices.

In: a bundle and a labelled set. Out: what each image gave, as plain data, from which the figures follow that one
process would have found, to the last bit. Never: a figure of a part, or a part of another bundle, set or option.

    pieces        images first … last, whole batches, the same for every number of workers
    job           what a worker gets, and what it does
    ray_workers   workers on Ray
    finished      pieces that are done, on disk
    record        one line per image, for other machines
    shards        one shard recorded; records put together
"""
