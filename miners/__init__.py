"""Hard negatives: absences that look present, at a false negative rate that every run measures."""
