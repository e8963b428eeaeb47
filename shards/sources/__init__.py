"""Exact public formats in, pictures and labels out; one file per format."""
