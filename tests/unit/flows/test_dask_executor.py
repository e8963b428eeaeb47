"""The executor on a real cluster of threads in this process, and what it says of clusters that cannot be used."""
