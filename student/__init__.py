"""Home of the bundled trainer and evaluator; empty until the student is built."""
