"""Detection: boxes out of a head's tensors by a record, their suppression, COCO's average precision."""
