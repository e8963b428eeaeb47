"""The compact bundled student: its training, evaluation of any student, export, latency and the report."""
