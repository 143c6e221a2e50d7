"""The documentation as a site: `make docs` gathers docs/ and what is generated from the code, and builds it offline."""
