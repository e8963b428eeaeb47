"""The commands that compose the stages; the only package that knows Prefect."""
