"""The commands that compose the stages; the only package that will know Prefect."""
