"""One module per section of tests/goldens/, each with a function `write(folder)`."""
