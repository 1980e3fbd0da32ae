"""Android devices, which have no Python: the static runner computes there, everything else happens here.

verify   bundle → hashes, preprocessing (here) → payload, golden inputs → runner (there) → outputs → the judge of home
eval     images → preprocessing (here) → inputs, shard by shard → runner (there) → outputs → the measures of home
bench    payload, golden inputs → runner (there), in the rounds of home → every call's time → the summary of home
doctor   properties, `dumpsys`, what the runner reads of the kernel → the record of home
"""
