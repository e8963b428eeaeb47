"""Home of the hard-negative miner; empty until mining is built."""
