"""Types, tables and files that every other package shares; imports nothing of ours."""
