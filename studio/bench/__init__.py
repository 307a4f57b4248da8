"""`python -m studio bench`: our figures beside a plain peer's, measured in pairs on the machine at hand."""
