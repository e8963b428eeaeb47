"""Sources, labels, mixing, shards and their reader: everything between raw pictures and a batch."""
