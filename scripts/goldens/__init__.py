"""One module a section of tests/goldens/; each has `write(folder)`."""
