"""How fast the compiled engine is, beside the frameworks that are there: `pellucid bench` and `make bench`."""
